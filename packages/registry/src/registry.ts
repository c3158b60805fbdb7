import type { Readable } from 'node:stream';
import type { Descriptor, Digest } from '@layercache/oci';
import type { OpenSpool } from './server/upload-spool.js';

/** Bytes on their way in. A function, because a push that is retried starts from the first byte again. */
export type ByteSource = () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Bytes of a blob, from `first` to `last`, both included, as in an HTTP `Range`. No `last`: to the end. */
export interface ByteRange {
  readonly first: number;
  readonly last?: number;
}

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface FetchBlobOptions extends RequestOptions {
  readonly range?: ByteRange;
}

export interface FetchedBlob {
  /** Size of the whole blob in bytes, where the registry says it. */
  readonly size: number | undefined;
  /**
   * Offset of the first byte that `body` yields. 0 although a range was asked for means that the registry
   * has no ranges and sends the whole blob.
   */
  readonly offset: number;
  /** The bytes as the registry sends them. Not verified: the reader who knows what it wants checks it. */
  readonly body: Readable;
}

export interface FetchedManifest {
  /** Media type, digest and size of `bytes`. */
  readonly descriptor: Descriptor;
  /** Exactly what the registry stores. Hashes to `descriptor.digest`. */
  readonly bytes: Uint8Array;
}

export interface ListOptions extends RequestOptions {
  /** Start after this name, in byte order. */
  readonly after?: string;
}

export interface PushManifestOptions extends RequestOptions {
  readonly tag?: string;
}

/**
 * A registry: every operation of the OCI distribution specification. The HTTP client implements it, the HTTP
 * server serves any value of it, and both sides can be composed: a cache is one, too.
 *
 * `repository` is a name as in the specification's `<name>`; `reference` is a tag or a digest. What does not
 * exist is `NOT_FOUND`; an operation that an implementation does not have is `UNSUPPORTED`.
 */
export interface Registry {
  /** The descriptor of a manifest, without its bytes. (HEAD /v2/<name>/manifests/<reference>) */
  resolve(repository: string, reference: string, options?: RequestOptions): Promise<Descriptor>;

  /** A manifest, verified against its digest. (GET /v2/<name>/manifests/<reference>) */
  fetchManifest(repository: string, reference: string, options?: RequestOptions): Promise<FetchedManifest>;

  /** Size in bytes of a blob, or undefined when the repository does not have it. (HEAD /v2/<name>/blobs/<digest>) */
  blobSize(repository: string, digest: Digest, options?: RequestOptions): Promise<number | undefined>;

  /** (GET /v2/<name>/blobs/<digest>) */
  fetchBlob(repository: string, digest: Digest, options?: FetchBlobOptions): Promise<FetchedBlob>;

  /**
   * Stores a blob. Bytes that do not hash to `descriptor.digest`, or are not `descriptor.size` long, are
   * refused with `DIGEST_MISMATCH`. (POST and PUT /v2/<name>/blobs/uploads/)
   */
  pushBlob(
    repository: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    options?: RequestOptions,
  ): Promise<void>;

  /**
   * Makes a blob of `from` appear in `repository` without sending it. False when the registry will not, and
   * the blob must be pushed. (POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<other>)
   */
  mountBlob(repository: string, digest: Digest, from: string, options?: RequestOptions): Promise<boolean>;

  /** (PUT /v2/<name>/manifests/<reference>) */
  pushManifest(
    repository: string,
    mediaType: string,
    bytes: Uint8Array,
    options?: PushManifestOptions,
  ): Promise<Descriptor>;

  /** Names a manifest that the repository has. */
  tag(repository: string, digest: Digest, tag: string, options?: RequestOptions): Promise<void>;

  /** Removes a manifest (by digest), or a tag. (DELETE /v2/<name>/manifests/<reference>) */
  deleteManifest(repository: string, reference: string, options?: RequestOptions): Promise<void>;

  /** (DELETE /v2/<name>/blobs/<digest>) */
  deleteBlob(repository: string, digest: Digest, options?: RequestOptions): Promise<void>;

  /** Tags in byte order, page by page. (GET /v2/<name>/tags/list) */
  tags(repository: string, options?: ListOptions): AsyncIterable<string>;

  /** Repositories in byte order. (GET /v2/_catalog, Docker registry API) */
  repositories(options?: ListOptions): AsyncIterable<string>;

  /** Manifests whose `subject` is `digest`. (GET /v2/<name>/referrers/<digest>, with the tag fallback) */
  referrers(
    repository: string,
    digest: Digest,
    options?: RequestOptions & { readonly artifactType?: string },
  ): AsyncIterable<Descriptor>;

  /**
   * Opens a place for the chunks of an upload, whose digest comes after them. A registry that has this keeps what
   * uploads leave unfinished, within limits of its own; a server keeps it in temporary files for one that has not.
   */
  readonly openSpool?: OpenSpool | undefined;
}
