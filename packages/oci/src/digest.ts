import { createHash, type Hash } from 'node:crypto';
import { LayercacheError } from './errors.js';

/** The algorithms registered by the OCI image specification (descriptor.md, "Registered Algorithms"). */
export type DigestAlgorithm = 'sha256' | 'sha512';

/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case. Only {@link parseDigest} and hashing make one. */
export type Digest = `${DigestAlgorithm}:${string}`;

const PATTERN = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: string): text is Digest {
  return PATTERN.test(text);
}

/**
 * Checks a digest from outside. What it returns is safe as a file name below `blobs/`.
 *
 * @throws LayercacheError `DIGEST_INVALID`
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  const shown = JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}…` : text);
  throw new LayercacheError(
    'DIGEST_INVALID',
    `${shown} is not a digest: expected sha256:<64 hex> or sha512:<128 hex>, in lower case`,
  );
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

export function digestHex(digest: Digest): string {
  return digest.slice(7);
}

/** `sha256:83eebabd6f0b…`: enough of a digest to tell it apart in a line of output. */
export function shortDigest(digest: Digest): string {
  return digest.slice(0, 7 + 12);
}

/** Hashes bytes as they pass by. */
export class Digester {
  readonly algorithm: DigestAlgorithm;
  /** Bytes hashed so far. */
  size = 0;
  readonly #hash: Hash;

  constructor(algorithm: DigestAlgorithm = 'sha256') {
    this.algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.size += bytes.byteLength;
  }

  /** The digest of everything so far. Can be called once. */
  digest(): Digest {
    return `${this.algorithm}:${this.#hash.digest('hex')}`;
  }
}

export function digestOf(bytes: Uint8Array | string, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}
