import type { Digest } from '@layercache/oci';

/** Tags are small, and asked for again after a while. */
const LIMIT = 1000;

/**
 * Names of manifests that clients have resolved and not fetched yet. They fetch by digest what they resolved by tag, and
 * the image is to have the name all the same.
 */
export class PendingNames {
  readonly #names = new Map<string, Digest>();

  add(name: string, digest: Digest): void {
    this.#names.delete(name);
    this.#names.set(name, digest);
    const [oldest] = this.#names.keys();
    if (this.#names.size > LIMIT && oldest !== undefined) this.#names.delete(oldest);
  }

  /** The names that a manifest is to have. */
  of(digest: Digest): string[] {
    return [...this.#names].filter(([, named]) => named === digest).map(([name]) => name);
  }

  drop(names: readonly string[]): void {
    for (const name of names) this.#names.delete(name);
  }
}
