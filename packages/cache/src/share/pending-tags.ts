import { digestHex, digestOf, isLayercacheError, type Digest, type Logger } from '@layercache/oci';
import { RegistryError } from '@layercache/registry';
import type { CacheLocation } from './remote-cache.js';

/** Hexadecimal digits of a digest in the name of a pending tag. */
const SHORT = 32;
/** Characters of a tag (distribution specification, "Pulling manifests"). */
const MAX_TAG = 128;
/** Pending tags that are read. Each push removes those before it, so more are made by something else. */
const MAX_PENDING = 1000;

/**
 * The pending tags of a cache in a registry: `<tag>.<short digest>` for each cache index that some machine pushed and
 * that no other is known to contain (docs/architecture.md, "Concurrent pushes"). The name says what stands there, so
 * a tag is never moved, and a late request cannot take anything back.
 */
export class PendingTags {
  readonly #location: CacheLocation;
  readonly #logger: Logger;
  readonly #prefix: string;

  constructor(location: CacheLocation, logger: Logger) {
    const { tag } = location;
    this.#location = location;
    this.#logger = logger;
    const isShort = tag.length + 1 + SHORT <= MAX_TAG;
    this.#prefix = `${isShort ? tag : digestHex(digestOf(tag))}.`;
  }

  nameOf(digest: Digest): string {
    return this.#prefix + digestHex(digest).slice(0, SHORT);
  }

  /** The pending tags that the registry lists; undefined when it lists none to us, whether there are any or not. */
  async list(signal: AbortSignal | undefined): Promise<readonly string[] | undefined> {
    const { registry, repository, name } = this.#location;
    const found: string[] = [];
    const isPending = new RegExp(`^[0-9a-f]{${SHORT}}$`);
    try {
      // After the prefix itself: a repository may have many other tags.
      for await (const tag of registry.tags(repository, { after: this.#prefix, signal })) {
        if (!tag.startsWith(this.#prefix)) {
          if (tag > this.#prefix) break;
          continue;
        }
        if (!isPending.test(tag.slice(this.#prefix.length))) continue;
        if (found.length >= MAX_PENDING) {
          this.#logger.warn({ message: 'too many pending tags: some are not read', name });
          break;
        }
        found.push(tag);
      }
      return found;
    } catch (error) {
      if (!isRefused(error)) throw error;
      this.#logger.debug({ message: 'tags cannot be listed', name, error: error.message });
      return undefined;
    }
  }

  /**
   * Removes a pending tag, or the manifest it names where the registry removes no tags.
   *
   * @returns whether it is gone
   */
  async remove(tag: string, digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    return (await this.#delete(tag, tag, signal)) || (await this.#delete(digest, tag, signal));
  }

  async #delete(reference: string, tag: string, signal: AbortSignal | undefined): Promise<boolean> {
    const { registry, repository } = this.#location;
    try {
      await registry.deleteManifest(repository, reference, { signal });
      return true;
    } catch (error) {
      if (!isRefused(error)) throw error;
      // A registry that does not know the request may answer as if the tag were not there.
      return isLayercacheError(error, 'NOT_FOUND') && !(await this.has(tag, signal));
    }
  }

  async has(tag: string, signal: AbortSignal | undefined): Promise<boolean> {
    const { registry, repository } = this.#location;
    try {
      await registry.resolve(repository, tag, { signal });
      return true;
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return false;
      throw error;
    }
  }
}

/** Whether a registry does not do what it was asked to, and would not do it another time. */
export function isRefused(error: unknown): error is Error {
  if (isLayercacheError(error, 'NOT_FOUND', 'UNSUPPORTED', 'UNAUTHORIZED', 'DOCUMENT_INVALID')) return true;
  const status = error instanceof RegistryError ? error.status : undefined;
  return status !== undefined && status >= 400 && status < 500 && status !== 429;
}
