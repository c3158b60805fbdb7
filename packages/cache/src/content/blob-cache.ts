import type { Readable } from 'node:stream';
import { MediaType, parseDigest, type Descriptor } from '@layercache/oci';
import type { Bytes, OciLayout } from '@layercache/layout';

export interface PutBlobOptions {
  /** What the bytes must hash to. Default: what they do. */
  readonly digest?: string | undefined;
  /** How many bytes there must be. */
  readonly size?: number | undefined;
  /** Default: `application/octet-stream`. A layer is found as one by its own. */
  readonly mediaType?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes of a blob, from `start` on and before `end`. Only a whole blob is hashed on the way. */
export interface GetBlobOptions {
  readonly start?: number;
  readonly end?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface BlobCacheContext {
  readonly layout: OciLayout;
  readonly open: (digest: string, options: GetBlobOptions) => Promise<Readable>;
}

/** Blobs of any kind, by digest. */
export class BlobCache {
  readonly #context: BlobCacheContext;

  constructor(context: BlobCacheContext) {
    this.#context = context;
  }

  /**
   * Stores bytes as they come. With a digest and a size, a source whose blob is here already is not read.
   *
   * @throws LayercacheError `DIGEST_MISMATCH`, `ABORTED`, `CACHE_FULL`, `STORAGE`; what the source throws
   */
  async put(source: Bytes, options: PutBlobOptions = {}): Promise<Descriptor> {
    const { digest, size, mediaType = MediaType.octetStream, signal } = options;
    const { layout } = this.#context;
    const written = await layout.write(source, {
      ...(digest === undefined ? {} : { digest: parseDigest(digest) }),
      ...(size === undefined ? {} : { size }),
      signal,
    });
    const descriptor = { mediaType, ...written };
    await layout.put(descriptor);
    return descriptor;
  }

  /**
   * The bytes, fetched first when they are known and not here.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  get(digest: string, options: GetBlobOptions = {}): Promise<Readable> {
    return this.#context.open(digest, options);
  }

  /** Whether the bytes are on this disk. A blob of another size is not the blob. */
  has(digest: string, size?: number): Promise<boolean> {
    return this.#context.layout.has(parseDigest(digest), size);
  }

  /** Bytes; undefined when it is not on this disk. */
  size(digest: string): Promise<number | undefined> {
    return this.#context.layout.blobSize(parseDigest(digest));
  }

  /** Removes a blob and its entries, whoever refers to it. Resolves with whether there was anything. */
  delete(digest: string): Promise<boolean> {
    return this.#context.layout.remove(parseDigest(digest));
  }
}
