import pLimit from 'p-limit';
import {
  LayercacheError,
  SingleFlight,
  isClaimedName,
  isLayercacheError,
  isManifestMediaType,
  throwIfAborted,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { RegistryError, formatReference, parseReference, type Reference } from '@layercache/registry';
import type { MetricsRecorder } from '../metrics/metrics.js';
import type { RegistryFactory } from '../sources/open-source.js';
import { isInvalidated, withSighting, type TagRecord, type TagSighting } from './tag-record.js';
import { TagStore } from './tag-store.js';

/** How long a tag is believed to stay where it was, in milliseconds: five minutes. */
export const DEFAULT_TAG_TTL = 5 * 60_000;

export interface ResolveTagOptions {
  /** Milliseconds since the registry was asked; 0 asks now. Default: the TTL that the cache was opened with. */
  readonly maxAge?: number | undefined;
  /** Ask no registry: `EXPIRED`, `INVALIDATED` or `NOT_FOUND` instead. Default false. */
  readonly offline?: boolean | undefined;
  /** When the registry is down, what it said last, with a warning. Default: as the cache was opened. */
  readonly staleIfError?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ResolvedTag {
  /** In full: `docker.io/library/alpine:3.20`. */
  readonly reference: string;
  readonly digest: Digest;
  readonly descriptor: Descriptor;
  /** When the registry said so. The beginning of 1970 when that is not known any more. */
  readonly resolvedAt: Date;
  /** Undefined for a reference with a digest, which cannot move. */
  readonly expiresAt: Date | undefined;
  /** `stale`: older than asked for, because the registry is down. */
  readonly source: 'cache' | 'registry' | 'stale';
  /** Set when this resolution found the tag somewhere else than the one before. */
  readonly moved?: { readonly from: Digest; readonly to: Digest };
}

/** A digest that a tag had. */
export interface TagMove {
  readonly digest: Digest;
  readonly descriptor: Descriptor;
  /** When it was first and last seen to have it. */
  readonly firstSeen: Date;
  readonly lastSeen: Date;
}

export type TagResolution =
  | { readonly reference: string; readonly resolved: ResolvedTag }
  | { readonly reference: string; readonly error: LayercacheError };

export interface TagContext {
  readonly layout: OciLayout;
  readonly registryOf: RegistryFactory;
  /** Milliseconds. */
  readonly ttl: number;
  readonly staleIfError: boolean;
  readonly logger: Logger;
  readonly metrics: Pick<MetricsRecorder, 'count'>;
  /** Milliseconds since 1970. Default: the clock. */
  readonly now?: () => number;
}

/**
 * From references to digests. A registry is asked by HEAD, which does not count against a pull limit, and not again
 * before the TTL is over; those who ask at the same time share the request. What was found is kept beside the cache,
 * for every process.
 */
export class TagResolver {
  readonly #context: TagContext;
  readonly #store: TagStore;
  readonly #flights = new SingleFlight<ResolvedTag>();
  readonly #now: () => number;

  constructor(context: TagContext) {
    this.#context = context;
    this.#store = new TagStore(context.layout, context.logger);
    this.#now = context.now ?? Date.now;
  }

  /**
   * @throws LayercacheError `REFERENCE_INVALID`; `NOT_FOUND`, `UNAUTHORIZED`, `REGISTRY`, `NETWORK` as the registry
   *   has it; offline `EXPIRED`, `INVALIDATED`, `NOT_FOUND`
   */
  async resolve(text: string, options: ResolveTagOptions = {}): Promise<ResolvedTag> {
    throwIfAborted(options.signal);
    const reference = parseTagged(text);
    const name = formatReference(reference);
    if (reference.digest !== undefined) return this.#pinned(reference, name, reference.digest, options);
    const record = this.#store.read(name);
    const known = record === undefined ? this.#named(name) : record.sightings.at(-1);
    const valid = record === undefined || !isInvalidated(record);
    if (known !== undefined && valid && this.#isFresh(known, options.maxAge)) {
      this.#context.metrics.count('tagHits');
      return this.#resolved(name, known, 'cache');
    }
    this.#context.metrics.count('tagMisses');
    if (options.offline === true) throw offlineError(name, record, known);
    try {
      // Who asks after an invalidation must not join a request from before it.
      const key = `${name} ${record?.invalidatedAt ?? ''}`;
      const asked = Math.max(this.#now(), (record?.invalidatedAt ?? -1) + 1);
      return await this.#flights.run(key, options.signal, (signal) =>
        this.#ask(reference, name, asked, signal),
      );
    } catch (error) {
      const stale = options.staleIfError ?? this.#context.staleIfError;
      if (!stale || known === undefined || !valid || !isOutage(error)) throw error;
      this.#context.logger.warn({
        message: 'registry is down, stale tag served',
        reference: name,
        digest: known.descriptor.digest,
        resolvedAt: new Date(known.lastSeen).toISOString(),
        error: error.message,
      });
      return this.#resolved(name, known, 'stale');
    }
  }

  /**
   * Many at once, in the order of the references. One that fails does not keep the others.
   *
   * @param options.concurrency requests under way at a time, default 4
   * @throws LayercacheError `ABORTED`
   */
  async resolveAll(
    references: readonly string[],
    options: ResolveTagOptions & { readonly concurrency?: number } = {},
  ): Promise<TagResolution[]> {
    const limit = pLimit(options.concurrency ?? 4);
    return Promise.all(
      references.map((reference) =>
        limit(async (): Promise<TagResolution> => {
          try {
            return { reference, resolved: await this.resolve(reference, options) };
          } catch (error) {
            throwIfAborted(options.signal);
            if (error instanceof LayercacheError) return { reference, error };
            throw error;
          }
        }),
      ),
    );
  }

  /** The digests that a tag was seen to have, the latest first; the twenty latest at most. Empty when never resolved. */
  history(text: string): TagMove[] {
    const record = this.#store.read(formatReference(parseTagged(text)));
    return (record?.sightings ?? [])
      .map(({ descriptor, firstSeen, lastSeen }) => ({
        digest: descriptor.digest,
        descriptor,
        firstSeen: new Date(firstSeen),
        lastSeen: new Date(lastSeen),
      }))
      .reverse();
  }

  /** What is known of the tag does not count any more: the next `resolve`, in any process, asks. Its history stays. */
  async invalidate(text: string): Promise<boolean> {
    const name = formatReference(parseTagged(text));
    const now = this.#now();
    const { before } = await this.#store.update(name, (record) => {
      const last = record.sightings.at(-1);
      // Also when the last answer came in this very millisecond, or the clock was set back.
      return last === undefined ? record : { ...record, invalidatedAt: Math.max(now, last.lastSeen) };
    });
    return before.sightings.length > 0;
  }

  close(): void {
    this.#store.close();
  }

  async #ask(reference: Reference, name: string, asked: number, signal: AbortSignal): Promise<ResolvedTag> {
    const { registryOf, logger } = this.#context;
    const { registry, repository, tag = '' } = reference;
    const descriptor = await registryOf(registry).resolve(repository, tag, { signal });
    const { before } = await this.#store.update(name, (record) => withSighting(record, descriptor, asked));
    const found = { descriptor, firstSeen: asked, lastSeen: asked };
    const from = before.sightings.at(-1)?.descriptor.digest;
    if (from === undefined || from === descriptor.digest) return this.#resolved(name, found, 'registry');
    logger.info({ message: 'tag moved', reference: name, from, to: descriptor.digest });
    return { ...this.#resolved(name, found, 'registry'), moved: { from, to: descriptor.digest } };
  }

  /** A reference with a digest cannot move: whoever has that manifest knows all there is to know. */
  async #pinned(
    { registry, repository }: Reference,
    name: string,
    digest: Digest,
    { offline = false, signal }: ResolveTagOptions,
  ): Promise<ResolvedTag> {
    const here = this.#context.layout
      .lookup(digest)
      .map((entry) => entry.descriptor)
      .find((each) => each.digest === digest && isManifestMediaType(each.mediaType));
    if (here === undefined && offline) {
      throw new LayercacheError('NOT_FOUND', `${name} is not in the cache, and no registry may be asked`);
    }
    const { mediaType, size } =
      here ?? (await this.#context.registryOf(registry).resolve(repository, digest, { signal }));
    return {
      reference: name,
      digest,
      descriptor: { mediaType, digest, size },
      resolvedAt: new Date(this.#now()),
      expiresAt: undefined,
      source: here === undefined ? 'registry' : 'cache',
    };
  }

  /** What the cache has under the name, when nothing else is known of the tag: its side state may have been deleted. */
  #named(name: string): TagSighting | undefined {
    const descriptor = this.#context.layout.lookupTag(name)?.descriptor;
    // No registry said what a claimed name means.
    if (descriptor === undefined || isClaimedName(descriptor)) return undefined;
    const { mediaType, digest, size } = descriptor;
    return { descriptor: { mediaType, digest, size }, firstSeen: 0, lastSeen: 0 };
  }

  /** A time in the future is a clock that was set back, or a lie. */
  #isFresh(known: TagSighting, maxAge: number | undefined): boolean {
    const age = this.#now() - known.lastSeen;
    return age > -1000 && age < (maxAge ?? this.#context.ttl);
  }

  #resolved(name: string, known: TagSighting, source: ResolvedTag['source']): ResolvedTag {
    return {
      reference: name,
      digest: known.descriptor.digest,
      descriptor: known.descriptor,
      resolvedAt: new Date(known.lastSeen),
      expiresAt: new Date(known.lastSeen + this.#context.ttl),
      source,
    };
  }
}

/** As `add` takes it. */
function parseTagged(text: string): Reference {
  return parseReference(text.replace(/^docker:\/\//, ''));
}

/** Whether nobody could say anything about the tag, in contrast to saying that it is gone or not ours to see. */
function isOutage(error: unknown): error is LayercacheError {
  if (isLayercacheError(error, 'NETWORK')) return true;
  return (
    error instanceof RegistryError &&
    error.status !== undefined &&
    (error.status >= 500 || error.status === 429)
  );
}

function offlineError(
  name: string,
  record: TagRecord | undefined,
  known: TagSighting | undefined,
): LayercacheError {
  if (known === undefined) {
    return new LayercacheError('NOT_FOUND', `${name} was never resolved, and no registry may be asked`);
  }
  if (record !== undefined && isInvalidated(record)) {
    return new LayercacheError(
      'INVALIDATED',
      `what is known of ${name} was invalidated, and no registry may be asked: resolve it online`,
    );
  }
  const seen = known.lastSeen === 0 ? 'at an unknown time' : `at ${new Date(known.lastSeen).toISOString()}`;
  return new LayercacheError(
    'EXPIRED',
    `${name} was last resolved ${seen}, which is too long ago, and no registry may be asked: resolve it online`,
  );
}
