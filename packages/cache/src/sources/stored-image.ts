import type { Readable } from 'node:stream';
import {
  IntegrityError,
  LayercacheError,
  MAX_MANIFEST_SIZE,
  MediaType,
  digestAlgorithm,
  digestOf,
  isDigest,
  parseDocument,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { FetchBlobOptions, FetchedBlob, FetchedManifest } from '@layercache/registry';
import { z } from 'zod';
import type { ImageReader } from './image-source.js';

/** Blobs in a folder or an archive, and the names of some of them. */
export interface ImageStore {
  /** What the errors call it: `oci:/tmp/images`. */
  readonly name: string;
  /** The manifest of a name; of an empty name, the only one there is. Rejects with `NOT_FOUND`. */
  resolve(name: string): Promise<Descriptor>;
  /** Bytes, or undefined when the blob is not there. */
  size(digest: Digest): Promise<number | undefined>;
  /** From byte `start` to the end, unverified. */
  read(digest: Digest, start: number, signal?: AbortSignal): Readable;
}

const mediaTypeSchema = z.looseObject({
  mediaType: z.string().optional(),
  manifests: z.unknown().optional(),
});

/** Reads a store as if it were a registry of one repository, so that there is one way to add an image. */
export class StoredImageReader implements ImageReader {
  readonly #store: ImageStore;

  constructor(store: ImageStore) {
    this.#store = store;
  }

  async resolve(repository: string, reference: string): Promise<Descriptor> {
    return (await this.fetchManifest(repository, reference)).descriptor;
  }

  async fetchManifest(_repository: string, reference: string): Promise<FetchedManifest> {
    const named = isDigest(reference) ? undefined : await this.#store.resolve(reference);
    const digest = named?.digest ?? (reference as Digest);
    const bytes = await this.#readManifest(digest);
    const mediaType = named?.mediaType ?? mediaTypeOf(bytes, digest);
    return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
  }

  async fetchBlob(_repository: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    const size = await this.#sizeOf(digest);
    const offset = options.range?.first ?? 0;
    const body = this.#store.read(digest, offset, options.signal);
    // An abort may come before anybody reads, and without a listener its error would end the process.
    body.on('error', () => undefined);
    return { size, offset, body };
  }

  async #readManifest(digest: Digest): Promise<Uint8Array> {
    const size = await this.#sizeOf(digest);
    if (size > MAX_MANIFEST_SIZE) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `${this.#store.name}: manifest ${digest} has ${size} bytes; the limit is ${MAX_MANIFEST_SIZE}`,
      );
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#store.read(digest, 0) as AsyncIterable<Uint8Array>) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const found = digestOf(bytes, digestAlgorithm(digest));
    if (found !== digest) {
      throw new IntegrityError(
        'DIGEST_MISMATCH',
        `${this.#store.name}: blob ${digest} is corrupt: its bytes hash to ${found}`,
        { expected: digest, found },
      );
    }
    return bytes;
  }

  async #sizeOf(digest: Digest): Promise<number> {
    const size = await this.#store.size(digest);
    if (size === undefined) {
      throw new LayercacheError('NOT_FOUND', `${this.#store.name} has no blob ${digest}`);
    }
    return size;
  }
}

/** manifest.md: `mediaType` should be there; where it is not, the fields tell an index from a manifest. */
function mediaTypeOf(bytes: Uint8Array, digest: Digest): string {
  const document = parseDocument(mediaTypeSchema, bytes, `manifest ${digest}`);
  return document.mediaType ?? (document.manifests === undefined ? MediaType.manifest : MediaType.index);
}
