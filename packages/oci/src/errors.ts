import type { Digest } from './digest.js';

/**
 * Every failure of layercache carries one of these codes, so that a caller can switch on `code` and the
 * compiler can check that it covered them.
 */
export type ErrorCode =
  /** The caller gave up: an `AbortSignal` fired. */
  | 'ABORTED'
  /** Something does not fit into the limits of a cache, whatever is evicted. */
  | 'CACHE_FULL'
  /** A digest is malformed, or names an algorithm other than sha256 and sha512. */
  | 'DIGEST_INVALID'
  /** Bytes do not hash to the digest they were asked for by, or have another size. */
  | 'DIGEST_MISMATCH'
  /** Decompressed bytes do not hash to the diffID that was claimed for them. */
  | 'DIFFID_MISMATCH'
  /** A descriptor, manifest, index or image config does not follow the OCI image specification. */
  | 'DOCUMENT_INVALID'
  /** A compressed stream is truncated, corrupt, or in an encoding that is not supported. */
  | 'COMPRESSION_INVALID'
  /** An archive (tar) is truncated, corrupt, or not the kind of archive it was said to be. */
  | 'ARCHIVE_INVALID'
  /** A folder is not an OCI image layout, or has a version this program does not know. */
  | 'LAYOUT_INVALID'
  /** The lock of a layout could not be had in time. */
  | 'LOCK_TIMEOUT'
  /** Nothing is known under that digest, diffID, tag or name. */
  | 'NOT_FOUND'
  /** What is known is older than it may be, and asking again was ruled out; the time of an image is over. */
  | 'EXPIRED'
  /** What is known was declared invalid, and asking again was ruled out. */
  | 'INVALIDATED'
  /** An image reference does not follow the grammar. */
  | 'REFERENCE_INVALID'
  /** An image has nothing for the platform asked for. */
  | 'PLATFORM_NOT_FOUND'
  /** The file system refused: full, read-only, no permission, an I/O error. `cause` has the system's error. */
  | 'STORAGE'
  /** A registry answered with an error, or with something that is not an answer. */
  | 'REGISTRY'
  /** A registry wants credentials that are not there, or refuses the ones it got. */
  | 'UNAUTHORIZED'
  /** A registry could not be reached, or the connection broke for good. */
  | 'NETWORK'
  /** The operation is not one that this object has. */
  | 'UNSUPPORTED'
  /** An argument is not usable. */
  | 'USAGE';

export interface ErrorOptions {
  readonly cause?: unknown;
}

/** The one error of this project. `message` says what failed, which thing, and what to do, in one line. */
export class LayercacheError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
  }
}

/** What was found is not what was expected: a digest, a diffID or a size. */
export class IntegrityError extends LayercacheError {
  readonly expected: Digest | number;
  readonly found: Digest | number;

  constructor(
    code: 'DIGEST_MISMATCH' | 'DIFFID_MISMATCH',
    message: string,
    detail: { readonly expected: Digest | number; readonly found: Digest | number } & ErrorOptions,
  ) {
    super(code, message, detail);
    this.expected = detail.expected;
    this.found = detail.found;
  }
}

/** Something does not fit into the limits of a cache: `CACHE_FULL`. */
export class CacheFullError extends LayercacheError {
  /** Bytes that room was wanted for. */
  readonly bytes: number;
  /** True when an empty cache would have no room for them either, so that it is of no use to try again. */
  readonly neverFits: boolean;

  constructor(
    message: string,
    detail: { readonly bytes: number; readonly neverFits: boolean } & ErrorOptions,
  ) {
    super('CACHE_FULL', message, detail);
    this.bytes = detail.bytes;
    this.neverFits = detail.neverFits;
  }
}

/** True for an error of this project, optionally with one of the given codes. */
export function isLayercacheError(error: unknown, ...codes: ErrorCode[]): error is LayercacheError {
  return error instanceof LayercacheError && (codes.length === 0 || codes.includes(error.code));
}
