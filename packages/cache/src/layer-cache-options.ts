import type { FileSystem, ReadOptions, VerifyOptions } from '@layercache/layout';
import type { Logger } from '@layercache/oci';
import type { RetentionOptions } from './policy/retention.js';
import type { RegistryFactory } from './sources/open-source.js';

export interface LayerCacheOptions extends RetentionOptions {
  /** Create the cache when the folder does not exist or is empty. Default true. */
  readonly create?: boolean | undefined;
  /** Make `oci-layout` and `index.json` again where they are missing or broken. Default false: that is an error. */
  readonly repair?: boolean | undefined;
  /** Blobs under way at a time. Default 4. */
  readonly concurrency?: number | undefined;
  /** Whether a tar that had to be decompressed is kept as a blob. Default true. */
  readonly keepUncompressed?: boolean | undefined;
  /** `process`: what has resolved survives the death of this process. `fsync`: also power loss. Default `process`. */
  readonly durability?: 'process' | 'fsync' | undefined;
  readonly logger?: Logger | undefined;
  /** How to reach the registry of a host. Default: a `RegistryClient` each, with Docker's credentials. */
  readonly registry?: RegistryFactory | undefined;
  /**
   * A cache at `REGISTRY/REPOSITORY:TAG` that is asked for what is not here, by digest or diffID: what it has
   * becomes an entry here, and its blob comes when it is read.
   */
  readonly remote?: string | undefined;
  /** Push to `remote` in the background whenever an image was added. `close` waits. Default false. */
  readonly writeBack?: boolean | undefined;
  /** Milliseconds for which a tag is believed to stay where a registry said it is. Default 300,000. */
  readonly tagTTL?: number | undefined;
  /** When a registry is down, tags mean what it said last, with a warning. Default false. */
  readonly staleIfError?: boolean | undefined;
  /** The disk that the cache is on. Default: the real one. */
  readonly files?: FileSystem | undefined;
}

export interface FindOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Bytes `start` up to and without `end`: a part is not hashed. Default: all. */
export type BlobOptions = Pick<ReadOptions, 'start' | 'end' | 'signal'>;

export interface ExportOptions {
  /** Put the SOCI index of the image beside it, made where it is not here. Default false. */
  readonly soci?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** `grace`: milliseconds for which a blob without an entry is left to whoever is writing it. */
export type VerifyCacheOptions = Pick<VerifyOptions, 'repair' | 'signal' | 'onProgress' | 'grace'>;
