import {
  isLayercacheError,
  isManifestMediaType,
  refName,
  type Descriptor,
  type Digest,
  type ErrorCode,
} from '@layercache/oci';
import { RegistryError } from '@layercache/registry';

/** A part of a cache that could not be pushed or pulled, and why. Everything else was. */
export interface SkippedPart {
  readonly digest: Digest;
  /** Of an image. */
  readonly name: string | undefined;
  readonly code: ErrorCode;
  readonly message: string;
}

/** The error of one part as a reason to go on without it; any error that would meet the others as well is thrown. */
export function skippedPart(part: Descriptor, error: unknown): SkippedPart {
  if (!isAboutOnePart(part, error)) throw error;
  return { digest: part.digest, name: refName(part), code: error.code, message: error.message };
}

function isAboutOnePart(part: Descriptor, error: unknown): error is Error & { readonly code: ErrorCode } {
  if (isLayercacheError(error, 'NOT_FOUND', 'DOCUMENT_INVALID', 'UNSUPPORTED', 'DIGEST_MISMATCH'))
    return true;
  const status = error instanceof RegistryError ? error.status : undefined;
  // A registry may forbid some kinds of images. When it forbids blobs, it forbids all.
  if (status === 403) return isManifestMediaType(part.mediaType);
  // A registry that is overloaded or down is so for all parts.
  return isLayercacheError(error, 'REGISTRY') && (status === undefined || (status < 500 && status !== 429));
}
