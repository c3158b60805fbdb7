import {
  MAX_MANIFEST_SIZE,
  SingleFlight,
  isDigest,
  isLayercacheError,
  isManifestMediaType,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import {
  forward,
  readOnly,
  type FetchedManifest,
  type Registry,
  type RequestOptions,
} from '@layercache/registry';
import { entryOf } from '../entries/entry.js';
import { withOrigin, type BlobOrigin } from '../entries/origins.js';
import { mirroredName, passOn, type MirrorContext } from './mirror-context.js';
import { MirroredBlobs } from './mirrored-blobs.js';
import { mirroredParts } from './mirrored-manifest.js';
import { PendingNames } from './pending-names.js';
import { upstreamError } from './upstream-error.js';

/**
 * A pull-through mirror of one registry: what the cache has comes from there, what it does not is fetched, kept, and
 * then handed out. Those who want the same thing at the same time share one fetch. A tag is asked for upstream when its
 * TTL is over, by HEAD; what a digest names never is again.
 */
export class Mirror {
  readonly #context: MirrorContext;
  readonly #fetches = new SingleFlight<FetchedManifest>();
  readonly #pending = new PendingNames();
  readonly #blobs: MirroredBlobs;

  constructor(context: MirrorContext) {
    this.#context = context;
    this.#blobs = new MirroredBlobs(context);
  }

  /** For readers. Lists (tags, repositories, referrers) are the upstream's. */
  registry(): Registry {
    const { local, upstream, host } = this.#context;
    const repositoryOf = (name: string): string => mirroredName(host, name).repository;
    const mapped = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        throw upstreamError(error, host);
      }
    };
    const mappedList = async function* <T>(list: () => AsyncIterable<T>): AsyncGenerator<T> {
      try {
        yield* list();
      } catch (error) {
        throw upstreamError(error, host);
      }
    };
    return readOnly({
      ...forward(local),
      resolve: (name, reference, options) => mapped(() => this.#resolve(name, reference, options)),
      fetchManifest: (name, reference, options) =>
        mapped(() => this.#fetchManifest(name, reference, options)),
      blobSize: (name, digest, options) => mapped(() => this.#blobs.size(name, digest, options)),
      fetchBlob: (name, digest, options) => mapped(() => this.#blobs.fetch(name, digest, options)),
      tags: (name, options) => mappedList(() => upstream.tags(repositoryOf(name), options)),
      repositories: (options) => mappedList(() => upstream.repositories(options)),
      referrers: (name, digest, options) =>
        mappedList(() => upstream.referrers(repositoryOf(name), digest, options)),
    });
  }

  async #resolve(name: string, reference: string, options: RequestOptions = {}): Promise<Descriptor> {
    const { tags, upstream } = this.#context;
    const { repository, full } = mirroredName(this.#context.host, name);
    if (isDigest(reference)) {
      return this.#known(reference) ?? upstream.resolve(repository, reference, options);
    }
    const tagged = `${full}:${reference}`;
    const { descriptor } = await tags.resolve(tagged, options);
    this.#pending.add(tagged, descriptor.digest);
    return descriptor;
  }

  async #fetchManifest(
    name: string,
    reference: string,
    options: RequestOptions = {},
  ): Promise<FetchedManifest> {
    const { metrics } = this.#context;
    const digest = isDigest(reference) ? reference : (await this.#resolve(name, reference, options)).digest;
    const kept = await this.#kept(digest, options.signal);
    if (kept !== undefined) metrics.count('bytesSaved', kept.bytes.length);
    metrics.count(kept === undefined ? 'misses' : 'hits');
    const manifest =
      kept ??
      (await this.#fetches.run(digest, options.signal, (signal) => this.#bring(name, digest, signal)));
    metrics.count('bytesServed', manifest.bytes.length);
    return manifest;
  }

  /** A manifest that is here, and whole. */
  async #kept(digest: Digest, signal: AbortSignal | undefined): Promise<FetchedManifest | undefined> {
    const { layout, logger } = this.#context;
    const descriptor = this.#known(digest);
    if (descriptor === undefined || !(await layout.has(digest, descriptor.size))) return undefined;
    try {
      const bytes = await layout.readBytes(digest, { maxSize: MAX_MANIFEST_SIZE, signal });
      await this.#giveNames(descriptor).catch((error: unknown) => {
        passOn(logger, digest, error);
      });
      return { descriptor, bytes };
    } catch (error) {
      // Evicted since it was looked for, or damaged: it is fetched again.
      if (isLayercacheError(error, 'NOT_FOUND', 'DIGEST_MISMATCH')) return undefined;
      throw error;
    }
  }

  /** A manifest comes with the entries of what it refers to, so that a commit finds no manifest without its parts. */
  async #bring(name: string, digest: Digest, signal: AbortSignal): Promise<FetchedManifest> {
    const { upstream, host, logger } = this.#context;
    const { repository, origin } = mirroredName(host, name);
    const fetched = await upstream.fetchManifest(repository, digest, { signal });
    // What no other part of the cache could read is only passed on.
    if (!isManifestMediaType(fetched.descriptor.mediaType)) return fetched;
    try {
      await this.#keep(origin, fetched, signal);
    } catch (error) {
      passOn(logger, digest, error);
    }
    return fetched;
  }

  async #keep(
    origin: BlobOrigin,
    { descriptor, bytes }: FetchedManifest,
    signal: AbortSignal,
  ): Promise<void> {
    const { layout, fetch, settled } = this.#context;
    const { digest } = descriptor;
    const parts = await mirroredParts(descriptor, bytes, { layout, fetch, settled, origin, signal });
    await layout.write(bytes, { digest, size: bytes.length, signal });
    const names = this.#pending.of(digest);
    const entries =
      names.length === 0 ? [entryOf(descriptor)] : names.map((each) => this.#named(descriptor, each));
    await layout.put([...parts, ...entries.map((entry) => withOrigin(entry, origin))]);
    this.#pending.drop(names);
  }

  /** The manifest is here; what it was asked for by may be new. */
  async #giveNames(descriptor: Descriptor): Promise<void> {
    const { layout } = this.#context;
    const names = this.#pending.of(descriptor.digest);
    const fresh = names.filter((name) => this.#context.names.served(name)?.digest !== descriptor.digest);
    await layout.put(fresh.map((name) => this.#named(descriptor, name)));
    this.#pending.drop(names);
  }

  #named(descriptor: Descriptor, name: string): Descriptor {
    const { names, renew, host } = this.#context;
    return renew(names.given(descriptor, name, host));
  }

  #known(digest: Digest): Descriptor | undefined {
    const entry = this.#context.layout
      .lookup(digest)
      .find(({ descriptor }) => descriptor.digest === digest && isManifestMediaType(descriptor.mediaType));
    if (entry === undefined) return undefined;
    const { mediaType, size } = entry.descriptor;
    return { mediaType, digest, size };
  }
}
