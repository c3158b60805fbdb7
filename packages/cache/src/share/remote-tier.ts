import {
  claimedDigests,
  claimedDiffID,
  isLayercacheError,
  throwIfAborted,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { indexedLayer } from '../indexes/stored-index.js';
import { entriesToAdopt } from './merge.js';
import { RemoteCacheReader, type CacheLocation } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';

/** Milliseconds for which a cache index is taken to be what stands under the tag. */
const FRESH = 10_000;

/** A cache in a registry behind one on disk: asked by digest or diffID, which no registry can answer by itself. */
export class RemoteTier {
  readonly #layout: OciLayout;
  readonly #location: CacheLocation;
  readonly #reader: RemoteCacheReader;
  readonly #logger: Logger;
  #keys: Promise<ReadonlyMap<Digest, readonly Descriptor[]>> | undefined;
  /** By `performance.now()`. */
  #readAt = -Infinity;

  constructor(layout: OciLayout, location: CacheLocation, memory: RemoteMemory, logger: Logger) {
    this.#layout = layout;
    this.#location = location;
    this.#reader = new RemoteCacheReader(location, memory, logger);
    this.#logger = logger;
  }

  /**
   * Makes what the remote knows by this digest or diffID entries of the layout, as claims. A remote that cannot
   * be asked has nothing: a cache that is away is no reason to fail.
   */
  async find(key: Digest, signal?: AbortSignal): Promise<void> {
    try {
      const known = (await this.#entries()).get(key) ?? [];
      throwIfAborted(signal);
      await this.#layout.put(entriesToAdopt(this.#layout, known, this.#location.origin));
    } catch (error) {
      if (!isLayercacheError(error) || error.code === 'ABORTED' || error.code === 'STORAGE') throw error;
      this.#logger.warn({
        message: 'remote cache not asked',
        name: this.#location.name,
        error: error.message,
      });
    }
  }

  /** Shared by all who miss at the same time, so none of them can abort it. */
  #entries(): Promise<ReadonlyMap<Digest, readonly Descriptor[]>> {
    if (this.#keys === undefined || performance.now() - this.#readAt > FRESH) {
      this.#readAt = performance.now();
      this.#keys = this.#read();
      this.#keys.catch(() => {
        this.#readAt = -Infinity;
      });
    }
    return this.#keys;
  }

  async #read(): Promise<ReadonlyMap<Digest, readonly Descriptor[]>> {
    const remote = await this.#reader.read();
    const keys = new Map<Digest, Descriptor[]>();
    for (const entry of remote?.entries ?? []) {
      for (const key of keysOf(entry)) {
        const before = keys.get(key);
        if (before === undefined) keys.set(key, [entry]);
        else before.push(entry);
      }
    }
    return keys;
  }
}

/** A layer index comes with the layer, by whichever name that is asked for. */
function keysOf(entry: Descriptor): Set<Digest> {
  const names = [claimedDiffID(entry), indexedLayer(entry)];
  return new Set([entry.digest, ...claimedDigests(entry), ...names.filter((name) => name !== undefined)]);
}
