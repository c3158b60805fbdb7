import type { Readable } from 'node:stream';
import {
  IntegrityError,
  LayercacheError,
  isLayercacheError,
  isManifestMediaType,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Ingested, IngestOptions, OciLayout } from '@layercache/layout';
import type { RegistryFactory } from '../sources/open-source.js';
import { blobOrigins, formatOrigin, type BlobOrigin } from '../entries/origins.js';

/** `remote`: not on this disk, but where it can be had is known. */
export type BlobState = 'local' | 'remote' | 'missing';

export interface FetchOptions extends IngestOptions {
  /** Whether a blob of another size than the descriptor's is an error: somebody was told that size already. */
  readonly exactSize?: boolean | undefined;
  /** Other places to ask, for a blob that has no entry. */
  readonly origins?: readonly BlobOrigin[] | undefined;
}

/**
 * Fetches blobs that a layout lists and does not have, from where this machine saw them: what the entries say, and
 * never what a descriptor in somebody's manifest says.
 */
export class RemoteBlobs {
  readonly #layout: OciLayout;
  readonly #registryOf: RegistryFactory;

  constructor(layout: OciLayout, registryOf: RegistryFactory) {
    this.#layout = layout;
    this.#registryOf = registryOf;
  }

  async state(descriptor: Descriptor): Promise<BlobState> {
    if (await this.#layout.has(descriptor.digest, descriptor.size)) return 'local';
    return this.#origins(descriptor).length > 0 ? 'remote' : 'missing';
  }

  /** The descriptor of a blob that is not here and can be had. */
  async find(digest: Digest): Promise<Descriptor | undefined> {
    const entry = this.#layout.lookup(digest).find((each) => each.descriptor.digest === digest);
    if (entry === undefined) return undefined;
    return (await this.state(entry.descriptor)) === 'remote' ? entry.descriptor : undefined;
  }

  /**
   * Brings a blob here, verified; an interrupted fetch goes on where it stopped.
   *
   * @throws LayercacheError `NOT_FOUND` when nobody has it; what the last registry that was asked said
   */
  async fetch(descriptor: Descriptor, options: FetchOptions = {}): Promise<Ingested> {
    const { digest, size } = descriptor;
    if (await this.#layout.has(digest, size)) return { size, fetched: 0 };
    const fetched = await this.#atAnyOrigin(descriptor, options.origins ?? [], (origin) =>
      this.#fetchFrom(origin, descriptor, options),
    );
    // Its entry is there already, so that the blob needs no protection until one is put.
    if (this.#layout.lookup(digest).some((entry) => entry.descriptor.digest === digest))
      this.#layout.unpin(digest);
    return fetched;
  }

  /** The first place that a blob was seen at, and where `work` does not fail. */
  async #atAnyOrigin<T>(
    descriptor: Descriptor,
    others: readonly BlobOrigin[],
    work: (origin: BlobOrigin) => Promise<T>,
  ): Promise<T> {
    const origins = this.#origins(descriptor, others);
    let last: unknown;
    for (const origin of origins) {
      try {
        return await work(origin);
      } catch (error) {
        if (!isLayercacheError(error, 'NOT_FOUND', 'UNAUTHORIZED', 'NETWORK', 'REGISTRY', 'DIGEST_MISMATCH'))
          throw error;
        // That one could not be asked says more than that another does not have it.
        if (last === undefined || isLayercacheError(last, 'NOT_FOUND')) last = error;
      }
    }
    if (last !== undefined && !isLayercacheError(last, 'NOT_FOUND')) throw last as Error;
    const elsewhere = origins.map((origin) => `, nor at ${formatOrigin(origin)}`);
    throw new LayercacheError(
      'NOT_FOUND',
      `blob ${descriptor.digest} is not in the cache any more${elsewhere.join('')}: add its image again`,
      { cause: last },
    );
  }

  /**
   * Bytes `start` up to and without `end` of a blob that is not here, and no more than these. They are not verified.
   * Undefined when the registry that has it does not send parts.
   *
   * @throws LayercacheError `NOT_FOUND` when nobody has it; what the last registry that was asked said
   */
  readRange(
    descriptor: Descriptor,
    start: number,
    end: number,
    signal?: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return this.#atAnyOrigin(descriptor, [], async ({ registry, repository }) => {
      const { offset, body } = await this.#registryOf(registry).fetchBlob(repository, descriptor.digest, {
        range: { first: start, last: end - 1 },
        signal,
      });
      if (offset === start) return firstBytes(body, end - start);
      body.destroy();
      return undefined;
    });
  }

  async #fetchFrom(
    { registry, repository }: BlobOrigin,
    { digest, size, mediaType }: Descriptor,
    options: FetchOptions,
  ): Promise<Ingested> {
    const reader = this.#registryOf(registry);
    if (isManifestMediaType(mediaType)) {
      const { bytes } = await reader.fetchManifest(repository, digest, { signal: options.signal });
      await this.#layout.write(bytes, { digest, size, signal: options.signal });
      return { size, fetched: size };
    }
    const bring = (expected: number): Promise<Ingested> =>
      this.#layout.ingest(
        { digest, size: expected },
        async (offset, signal) => {
          const range = offset === 0 ? {} : { range: { first: offset } };
          const fetched = await reader.fetchBlob(repository, digest, { ...range, signal });
          if (fetched.size === undefined || fetched.size === expected) return fetched;
          fetched.body.destroy();
          throw new OtherSize(digest, expected, fetched.size);
        },
        options,
      );
    try {
      return await bring(size);
    } catch (error) {
      if (!(error instanceof OtherSize) || options.exactSize === true) throw error;
      // A size is a claim until somebody has the bytes; the digest says whether these are the right ones.
      const ingested = await bring(error.found as number);
      await this.#layout.put(entriesOf(this.#layout, digest));
      return ingested;
    }
  }

  #origins({ digest }: Descriptor, others: readonly BlobOrigin[] = []): BlobOrigin[] {
    const entries = this.#layout.lookup(digest).filter((entry) => entry.descriptor.digest === digest);
    const origins = [...others, ...entries.flatMap((entry) => blobOrigins(entry.descriptor))];
    return [...new Map(origins.map((each) => [formatOrigin(each), each])).values()];
  }
}

function entriesOf(layout: OciLayout, digest: Digest): Descriptor[] {
  return layout
    .lookup(digest)
    .flatMap(({ descriptor }) => (descriptor.digest === digest ? [descriptor] : []));
}

/** A registry has a blob of another size than was claimed. */
export class OtherSize extends IntegrityError {
  constructor(digest: Digest, expected: number, found: number) {
    const message = `blob ${digest} has ${found} bytes at its registry, and was said to have ${expected}`;
    super('DIGEST_MISMATCH', message, { expected, found });
  }
}

/** A registry without ranges sends all of a blob, also when its beginning was asked for. */
async function* firstBytes(body: Readable, size: number): AsyncGenerator<Uint8Array> {
  let left = size;
  for await (const bytes of body as AsyncIterable<Uint8Array>) {
    yield bytes.subarray(0, left);
    left -= bytes.length;
    if (left <= 0) return;
  }
}
