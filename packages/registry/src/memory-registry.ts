import { Readable } from 'node:stream';
import {
  IntegrityError,
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestAlgorithm,
  digestOf,
  isDigest,
  isImageManifestMediaType,
  isIndexMediaType,
  isNondistributable,
  parseDocument,
  parseImageIndex,
  parseImageManifest,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { RegistryError } from './registry-error.js';
import type {
  ByteSource,
  FetchBlobOptions,
  FetchedBlob,
  FetchedManifest,
  ListOptions,
  PushManifestOptions,
  Registry,
  RequestOptions,
} from './registry.js';
import { referrerOf, subjectSchema } from './subject.js';

interface StoredManifest {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

interface Repository {
  readonly blobs: Map<Digest, Uint8Array>;
  readonly manifests: Map<Digest, StoredManifest>;
  readonly tags: Map<string, Digest>;
}

/** A registry in memory, as strict as real ones: it takes no bytes with a wrong digest, no manifest with parts missing. */
export class MemoryRegistry implements Registry {
  readonly #repositories = new Map<string, Repository>();

  async resolve(repository: string, reference: string): Promise<Descriptor> {
    const { digest, manifest } = this.#manifest(repository, reference);
    return Promise.resolve({ mediaType: manifest.mediaType, digest, size: manifest.bytes.length });
  }

  async fetchManifest(repository: string, reference: string): Promise<FetchedManifest> {
    const descriptor = await this.resolve(repository, reference);
    return { descriptor, bytes: this.#manifest(repository, descriptor.digest).manifest.bytes };
  }

  async blobSize(repository: string, digest: Digest): Promise<number | undefined> {
    return Promise.resolve(this.#repositories.get(repository)?.blobs.get(digest)?.length);
  }

  async fetchBlob(repository: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    throwIfAborted(options.signal);
    const bytes = this.#repositories.get(repository)?.blobs.get(digest);
    if (bytes === undefined) {
      throw new LayercacheError('NOT_FOUND', `${repository} has no blob ${digest}`);
    }
    const { first = 0, last = bytes.length - 1 } = options.range ?? {};
    const body = Readable.from(slices(bytes.subarray(first, last + 1)), { objectMode: false });
    return Promise.resolve({ size: bytes.length, offset: first, body });
  }

  async pushBlob(
    repository: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    options: RequestOptions = {},
  ): Promise<void> {
    const { digest, size } = descriptor;
    const chunks: Uint8Array[] = [];
    let received = 0;
    for await (const chunk of source()) {
      throwIfAborted(options.signal);
      received += chunk.length;
      if (received > size) break;
      // The source may use its buffer again.
      chunks.push(Uint8Array.from(chunk));
    }
    if (received !== size) {
      const more = received > size ? ' or more' : '';
      throw new IntegrityError(
        'DIGEST_MISMATCH',
        `blob ${digest} has ${received}${more} bytes, not ${size}`,
        {
          expected: size,
          found: received,
        },
      );
    }
    const bytes = Buffer.concat(chunks);
    const found = digestOf(bytes, digestAlgorithm(digest));
    if (found !== digest) {
      throw new IntegrityError('DIGEST_MISMATCH', `the bytes pushed as ${digest} hash to ${found}`, {
        expected: digest,
        found,
      });
    }
    this.#repository(repository).blobs.set(digest, bytes);
  }

  async mountBlob(repository: string, digest: Digest, from: string): Promise<boolean> {
    const bytes = this.#repositories.get(from)?.blobs.get(digest);
    if (bytes !== undefined) this.#repository(repository).blobs.set(digest, bytes);
    return Promise.resolve(bytes !== undefined);
  }

  async pushManifest(
    repository: string,
    mediaType: string,
    bytes: Uint8Array,
    options: PushManifestOptions = {},
  ): Promise<Descriptor> {
    if (bytes.length > MAX_MANIFEST_SIZE) {
      throw new RegistryError(
        'REGISTRY',
        `a manifest of ${bytes.length} bytes is larger than ${MAX_MANIFEST_SIZE}`,
        {
          status: 413,
          reported: [{ code: 'SIZE_INVALID' }],
        },
      );
    }
    const digest = digestOf(bytes);
    const stored = this.#repository(repository);
    checkParts(stored, mediaType, bytes, digest);
    stored.manifests.set(digest, { mediaType, bytes: Uint8Array.from(bytes) });
    if (options.tag !== undefined) stored.tags.set(options.tag, digest);
    return Promise.resolve({ mediaType, digest, size: bytes.length });
  }

  async tag(repository: string, digest: Digest, tag: string): Promise<void> {
    await this.resolve(repository, digest);
    this.#repository(repository).tags.set(tag, digest);
  }

  async deleteManifest(repository: string, reference: string): Promise<void> {
    const { digest } = this.#manifest(repository, reference);
    const stored = this.#repository(repository);
    if (!isDigest(reference)) {
      stored.tags.delete(reference);
      return Promise.resolve();
    }
    stored.manifests.delete(digest);
    for (const [tag, tagged] of stored.tags) if (tagged === digest) stored.tags.delete(tag);
  }

  async deleteBlob(repository: string, digest: Digest): Promise<void> {
    if (this.#repositories.get(repository)?.blobs.delete(digest) !== true) {
      throw new LayercacheError('NOT_FOUND', `${repository} has no blob ${digest}`);
    }
    return Promise.resolve();
  }

  async *tags(repository: string, options: ListOptions = {}): AsyncGenerator<string> {
    const stored = this.#repositories.get(repository);
    if (stored === undefined) throw new LayercacheError('NOT_FOUND', `there is no repository ${repository}`);
    yield* sortedAfter(stored.tags.keys(), options.after);
    await Promise.resolve();
  }

  async *repositories(options: ListOptions = {}): AsyncGenerator<string> {
    yield* sortedAfter(this.#repositories.keys(), options.after);
    await Promise.resolve();
  }

  async *referrers(
    repository: string,
    digest: Digest,
    options: RequestOptions & { readonly artifactType?: string } = {},
  ): AsyncGenerator<Descriptor> {
    for (const [own, { mediaType, bytes }] of this.#repositories.get(repository)?.manifests ?? []) {
      const manifest = parseDocument(subjectSchema, bytes, `manifest ${own}`);
      if (manifest.subject?.digest !== digest) continue;
      const referrer = referrerOf({ mediaType, digest: own, size: bytes.length }, manifest);
      if (options.artifactType === undefined || options.artifactType === referrer.artifactType)
        yield referrer;
    }
    await Promise.resolve();
  }

  #repository(name: string): Repository {
    const found = this.#repositories.get(name) ?? { blobs: new Map(), manifests: new Map(), tags: new Map() };
    this.#repositories.set(name, found);
    return found;
  }

  #manifest(repository: string, reference: string): { digest: Digest; manifest: StoredManifest } {
    const stored = this.#repositories.get(repository);
    const digest = isDigest(reference) ? reference : stored?.tags.get(reference);
    const manifest = digest === undefined ? undefined : stored?.manifests.get(digest);
    if (digest === undefined || manifest === undefined) {
      throw new LayercacheError('NOT_FOUND', `${repository} has no manifest ${reference}`);
    }
    return { digest, manifest };
  }
}

/** Registries refuse a manifest that refers to what they do not have. Foreign layers are somewhere else by design. */
function checkParts(stored: Repository, mediaType: string, bytes: Uint8Array, digest: Digest): void {
  const missing = (part: Digest, code: string): never => {
    throw new RegistryError(
      'REGISTRY',
      `manifest ${digest} refers to ${part}, which is not in the repository: push it first`,
      {
        status: 400,
        reported: [{ code, detail: part }],
      },
    );
  };
  if (isIndexMediaType(mediaType)) {
    for (const child of parseImageIndex(bytes, `image index ${digest}`).manifests) {
      if (!stored.manifests.has(child.digest)) missing(child.digest, 'MANIFEST_BLOB_UNKNOWN');
    }
  } else if (isImageManifestMediaType(mediaType)) {
    const { config, layers } = parseImageManifest(bytes, `image manifest ${digest}`);
    for (const part of [config, ...layers]) {
      if (!isNondistributable(part.mediaType) && !stored.blobs.has(part.digest)) {
        missing(part.digest, 'MANIFEST_BLOB_UNKNOWN');
      }
    }
  }
}

/** Pieces of the size that the network would bring. */
function* slices(bytes: Uint8Array): Generator<Uint8Array> {
  const step = 64 * 1024;
  for (let start = 0; start < bytes.length; start += step) yield bytes.subarray(start, start + step);
}

function sortedAfter(names: Iterable<string>, after: string | undefined): string[] {
  return [...names].sort().filter((name) => after === undefined || name > after);
}
