import {
  MediaType,
  digestAlgorithm,
  digestHex,
  isLayercacheError,
  parseImageIndex,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Registry, RequestOptions } from '../registry.js';

/**
 * The list of a subject's referrers that clients keep under a tag where a registry has no referrers API
 * (distribution specification, "Referrers Tag Schema"). Changes of one process take turns; those of several
 * can undo each other, as the specification says.
 */
export class FallbackReferrers {
  readonly #registry: Pick<Registry, 'fetchManifest' | 'pushManifest'>;
  readonly #turns = new Map<string, Promise<void>>();

  constructor(registry: Pick<Registry, 'fetchManifest' | 'pushManifest'>) {
    this.#registry = registry;
  }

  /** @throws LayercacheError `DOCUMENT_INVALID` when something else than an image index has the tag */
  async list(
    repository: string,
    subject: Digest,
    options: RequestOptions,
  ): Promise<readonly Descriptor[] | undefined> {
    const tag = fallbackTag(subject);
    try {
      const { bytes } = await this.#registry.fetchManifest(repository, tag, options);
      return parseImageIndex(bytes, `the referrers of ${subject}`).manifests;
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  async add(
    repository: string,
    subject: Digest,
    referrer: Descriptor,
    options: RequestOptions,
  ): Promise<void> {
    await this.#change(repository, subject, options, (listed = []) =>
      listed.some(({ digest }) => digest === referrer.digest) ? undefined : [...listed, referrer],
    );
  }

  async remove(
    repository: string,
    subject: Digest,
    referrer: Digest,
    options: RequestOptions,
  ): Promise<void> {
    await this.#change(repository, subject, options, (listed = []) =>
      listed.some(({ digest }) => digest === referrer)
        ? listed.filter(({ digest }) => digest !== referrer)
        : undefined,
    );
  }

  /** @param change gives the new list, or undefined where nothing is to change */
  async #change(
    repository: string,
    subject: Digest,
    options: RequestOptions,
    change: (listed: readonly Descriptor[] | undefined) => readonly Descriptor[] | undefined,
  ): Promise<void> {
    const tag = fallbackTag(subject);
    const key = `${repository}:${tag}`;
    const work = async (): Promise<void> => {
      const manifests = change(await this.list(repository, subject, options));
      if (manifests === undefined) return;
      const index = { schemaVersion: 2, mediaType: MediaType.index, manifests };
      const bytes = Buffer.from(JSON.stringify(index));
      await this.#registry.pushManifest(repository, MediaType.index, bytes, { ...options, tag });
    };
    const turn = (this.#turns.get(key) ?? Promise.resolve()).then(work, work);
    this.#turns.set(key, turn);
    try {
      await turn;
    } finally {
      if (this.#turns.get(key) === turn) this.#turns.delete(key);
    }
  }
}

function fallbackTag(subject: Digest): string {
  return `${digestAlgorithm(subject)}-${digestHex(subject).slice(0, 64)}`;
}
