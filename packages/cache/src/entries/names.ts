import { LayercacheError, isDigest, type Digest, type ErrorCode } from '@layercache/oci';

/** The name of the cache index in a layout's own index.json. */
export const CACHE_TAG = 'layercache';

/** Characters of a name. A full reference has at most 255 for host and repository, 128 for a tag, and a digest. */
const MAX_NAME_LENGTH = 600;

/**
 * Whether a text is, or begins as, a digest. It is never looked up as a name, so that a reference by digest resolves to
 * that digest or fails.
 */
export function looksLikeDigest(text: string): boolean {
  return /^sha(?:256|512):[0-9a-fA-F]*$/.test(text);
}

/** The digest in `name@digest`; undefined for a text without one. */
export function digestIn(text: string): Digest | undefined {
  const at = text.lastIndexOf('@');
  const digest = at === -1 ? '' : text.slice(at + 1);
  return isDigest(digest) ? digest : undefined;
}

/** Why an image of this digest cannot have a name; undefined when it can. */
function refusal(name: string, digest: Digest | undefined): string | undefined {
  if (name === CACHE_TAG) return 'it is the name of the cache index itself';
  if (looksLikeDigest(name)) return 'it reads as a digest';
  if (name === '' || name.length > MAX_NAME_LENGTH) return `it has not 1 to ${MAX_NAME_LENGTH} characters`;
  if (!/^[\x21-\x7e]+$/.test(name)) return 'it has characters other than visible ASCII';
  if (!name.includes('@')) return undefined;
  const named = digestIn(name);
  if (named === undefined) return 'it has an @, and no digest after it';
  return digest === undefined || named === digest ? undefined : 'the digest in it is that of another image';
}

/** Whether an image of this digest can have the name. */
export function isUsableName(name: string, digest: Digest | undefined): boolean {
  return refusal(name, digest) === undefined;
}

/**
 * Refuses a name that means something else in a cache.
 *
 * @param digest of the image that is to have it, where that is known
 * @param source says in the error where the name comes from: `oci:build`
 * @throws LayercacheError `REFERENCE_INVALID`, or the code given
 */
export function checkName(
  name: string,
  digest: Digest | undefined,
  source: string,
  code: ErrorCode = 'REFERENCE_INVALID',
): void {
  const why = refusal(name, digest);
  if (why === undefined) return;
  const shown = JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
  throw new LayercacheError(
    code,
    `${source}: ${shown} cannot be the name of an image: ${why}; choose another`,
  );
}
