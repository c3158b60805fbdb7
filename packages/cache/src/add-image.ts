import pLimit, { type LimitFunction } from 'p-limit';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  digestOf,
  isIndexMediaType,
  isNondistributable,
  layerForm,
  throwIfAborted,
  type Descriptor,
  type Digest,
  type Logger,
  type Platform,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { entryOf } from './entries/entry.js';
import { withOrigin } from './entries/origins.js';
import { checkName } from './entries/names.js';
import type { ImageNames } from './images/image-names.js';
import {
  MAX_CONFIG_SIZE,
  claimPairs,
  isImageConfig,
  parseManifest,
  readImageConfig,
} from './images/manifest.js';
import { settledEntry, type ClaimsContext } from './layers/claims.js';
import type { MetricsRecorder } from './metrics/metrics.js';
import type { Pairing } from './pairing.js';
import { hostPlatform, selectPlatform } from './platform.js';
import { Holds } from './policy/holds.js';
import type { ImageSource } from './sources/image-source.js';

export interface BlobProgress {
  readonly descriptor: Descriptor;
  /** Bytes here so far. */
  readonly received: number;
  /** `kept`: it was here already. */
  readonly state: 'receiving' | 'done' | 'kept' | 'skipped';
}

export interface AddOptions {
  /** The name to keep the image under, instead of the one it has at its source. */
  readonly name?: string | undefined;
  /** Which image of an index: Linux on this machine's processor unless said, or `'all'`. */
  readonly platform?: Platform | readonly Platform[] | 'all' | undefined;
  /** How long the image stays, in ms; adding it again begins anew. Default: as the cache has it. */
  readonly ttl?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BlobProgress) => void) | undefined;
}

export interface AddedImage {
  readonly name: string | undefined;
  readonly descriptor: Descriptor;
  /** Layers, as entries, each once. */
  readonly layers: readonly Descriptor[];
  /** Bytes that came from the source, manifests and configs included. */
  readonly fetched: number;
  /** Bytes that did not have to come, because they were here. */
  readonly reused: number;
  /** Layers left at their source because they may not be distributed. */
  readonly skipped: readonly Descriptor[];
}

export interface AddContext {
  /** Blobs under way at a time. */
  readonly concurrency: number;
  readonly logger: Logger;
  readonly pairing: Pairing;
  readonly names: ImageNames;
  /** What the entry of the image says of how long it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
  readonly metrics: MetricsRecorder;
}

/** How deep image indexes may be nested in one another. */
const MAX_DEPTH = 8;
/** Manifests of one image, those of an index at any depth included. */
const MAX_MANIFESTS = 10_000;

interface Tally {
  readonly layers: Map<Digest, Descriptor>;
  readonly skipped: Map<Digest, Descriptor>;
  fetched: number;
  reused: number;
}

/** Adds one image, with everything it refers to, to a layout. */
export class ImageAdder {
  readonly #layout: OciLayout;
  readonly #source: ImageSource;
  readonly #options: AddOptions;
  readonly #logger: Logger;
  readonly #holds: Holds;
  readonly #names: ImageNames;
  readonly #renew: (named: Descriptor) => Descriptor;
  readonly #metrics: MetricsRecorder;
  readonly #limit: LimitFunction;
  readonly #claims: ClaimsContext;
  readonly #tally: Tally = { layers: new Map(), skipped: new Map(), fetched: 0, reused: 0 };
  /** Manifests that were begun: a nested index may list one as often as it likes. */
  readonly #added = new Map<Digest, Promise<Descriptor>>();
  readonly #abort = new AbortController();
  /** What went wrong first. What it stopped fails, too, but that is not news. */
  #failure: { readonly error: unknown } | undefined;

  constructor(layout: OciLayout, source: ImageSource, options: AddOptions, context: AddContext) {
    this.#layout = layout;
    this.#source = source;
    this.#options = options;
    this.#logger = context.logger;
    this.#names = context.names;
    this.#renew = context.renew;
    this.#holds = new Holds(layout);
    this.#metrics = context.metrics;
    this.#limit = pLimit(context.concurrency);
    this.#claims = { layout, pairing: context.pairing, logger: context.logger };
  }

  async add(): Promise<AddedImage> {
    throwIfAborted(this.#options.signal);
    const stop = (): void => {
      this.#abort.abort(this.#options.signal?.reason);
    };
    this.#options.signal?.addEventListener('abort', stop, { once: true });
    try {
      // HEAD first: it does not count against a registry's pull limit, and what is here need not come again.
      const { reader, repository, reference } = this.#source;
      const found = await reader.resolve(repository, reference, { signal: this.#abort.signal });
      const name = this.#options.name ?? this.#source.name;
      const from = this.#options.name === undefined ? `the image of ${this.#source.label}` : 'the name given';
      if (name !== undefined) checkName(name, undefined, from);
      const descriptor = await this.#addRoot(found, await this.#manifestBytes(found));
      const named = name === undefined ? descriptor : this.#names.given(descriptor, name, from);
      await this.#layout.put(this.#renew(named));
      const { layers, skipped, fetched, reused } = this.#tally;
      return {
        name,
        descriptor: named,
        layers: [...layers.values()],
        fetched,
        reused,
        skipped: [...skipped.values()],
      };
    } finally {
      this.#options.signal?.removeEventListener('abort', stop);
      this.#holds[Symbol.dispose]();
    }
  }

  /** An image, or an image index reduced to the platforms wanted. Resolves with what to name. */
  async #addRoot(descriptor: Descriptor, bytes: Uint8Array): Promise<Descriptor> {
    const wanted = this.#options.platform ?? hostPlatform();
    if (!isIndexMediaType(descriptor.mediaType)) return this.#addManifest(descriptor, bytes);
    if (wanted === 'all') return this.#addManifest(descriptor, bytes);
    const parsed = parseManifest(descriptor, bytes);
    if (parsed.kind !== 'index') throw new TypeError('an index media type parses as an index');
    const { index } = parsed;
    const image = this.#source.name ?? descriptor.digest;
    if (!Array.isArray(wanted)) {
      const chosen = selectPlatform(index.manifests, wanted as Platform, image);
      return this.#addManifest(chosen, await this.#manifestBytes(chosen));
    }
    // Several, but not all: an index of its own, since the one at the source refers to what is not wanted.
    const chosen = new Set(
      (wanted as Platform[]).map((each) => selectPlatform(index.manifests, each, image)),
    );
    const reduced = { ...index, manifests: index.manifests.filter((each) => chosen.has(each)) };
    const written = Buffer.from(JSON.stringify(reduced));
    return this.#addManifest(
      { mediaType: descriptor.mediaType, digest: digestOf(written), size: written.length },
      written,
    );
  }

  /** @param depth how many indexes it is in */
  #addChild(child: Descriptor, depth: number): Promise<Descriptor> {
    const begun = this.#added.get(child.digest);
    if (begun !== undefined) return begun;
    if (depth > MAX_DEPTH || this.#added.size >= MAX_MANIFESTS) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        depth > MAX_DEPTH
          ? `${this.#source.label}: image index ${child.digest} is nested deeper than ${MAX_DEPTH} indexes`
          : `${this.#source.label} has more than ${MAX_MANIFESTS} manifests`,
      );
    }
    const adding = this.#manifestBytes(child).then(async (bytes) => {
      const added = await this.#addManifest(child, bytes, depth);
      await this.#layout.put(added);
      return added;
    });
    this.#added.set(child.digest, adding);
    return adding;
  }

  /** Stores a manifest after everything it refers to, so that what is found is whole. Its entry is the caller's. */
  async #addManifest(descriptor: Descriptor, bytes: Uint8Array, depth = 0): Promise<Descriptor> {
    const parsed = parseManifest(descriptor, bytes);
    if (parsed.kind === 'index') {
      await this.#together(parsed.index.manifests, (child) => this.#addChild(child, depth + 1));
    } else {
      await this.#addLayersOf(descriptor, parsed.manifest);
    }
    await this.#layout.write(bytes, { digest: descriptor.digest, size: descriptor.size });
    await this.#holds.hold(descriptor);
    return entryOf(descriptor);
  }

  async #addLayersOf(
    descriptor: Descriptor,
    manifest: Extract<ReturnType<typeof parseManifest>, { kind: 'image' }>['manifest'],
  ): Promise<void> {
    if (manifest.config.size > MAX_CONFIG_SIZE) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `image ${descriptor.digest} has a config of ${manifest.config.size} bytes; the limit is ${MAX_CONFIG_SIZE}`,
      );
    }
    await this.#limit(() => this.#addBlob(entryOf(manifest.config)));
    const config = await this.#layout.readBytes(manifest.config.digest, { maxSize: MAX_CONFIG_SIZE });
    const layers = isImageConfig(manifest.config)
      ? claimPairs(manifest, readImageConfig(manifest, config), descriptor.digest)
      : manifest.layers.map((layer) => entryOf(layer));
    const distinct = [...new Map(layers.map((layer) => [layer.digest, layer] as const)).values()];
    for (const layer of distinct) {
      if (layerForm(layer.mediaType) === undefined || isNondistributable(layer.mediaType)) continue;
      this.#tally.layers.set(layer.digest, layer);
    }
    await this.#together(distinct, (layer) => this.#limit(() => this.#addLayer(layer)));
  }

  async #addLayer(layer: Descriptor): Promise<void> {
    if (isNondistributable(layer.mediaType)) {
      this.#tally.skipped.set(layer.digest, layer);
      this.#logger.warn({
        message: 'layer left at its source: it may not be distributed',
        digest: layer.digest,
        mediaType: layer.mediaType,
      });
      this.#options.onProgress?.({ descriptor: layer, received: 0, state: 'skipped' });
      return;
    }
    await this.#addBlob(layer);
  }

  async #addBlob(entry: Descriptor): Promise<void> {
    const { onProgress } = this.#options;
    const { digest, size } = entry;
    const signal = this.#abort.signal;
    if (await this.#holds.hold(entry)) {
      this.#reused(size);
      onProgress?.({ descriptor: entry, received: size, state: 'kept' });
    } else {
      const { fetched } = await this.#layout.ingest(
        { digest, size },
        async (offset, stop) => {
          const range = offset === 0 ? {} : { range: { first: offset } };
          return this.#source.reader.fetchBlob(this.#source.repository, digest, {
            ...range,
            signal: stop,
          });
        },
        {
          signal,
          onProgress: (received) => onProgress?.({ descriptor: entry, received, state: 'receiving' }),
        },
      );
      await this.#holds.hold(entry);
      this.#fetched(fetched, size);
      onProgress?.({ descriptor: entry, received: size, state: 'done' });
    }
    const { origin } = this.#source;
    const settled = await settledEntry(this.#claims, entry, { refuse: true, signal });
    await this.#layout.put(origin === undefined ? settled : withOrigin(settled, origin));
  }

  /** A manifest that is here is not fetched again: its digest says that it cannot have changed. */
  async #manifestBytes(descriptor: Descriptor): Promise<Uint8Array> {
    if (await this.#holds.hold(descriptor)) {
      this.#reused(descriptor.size);
      return this.#layout.readBytes(descriptor.digest, { maxSize: MAX_MANIFEST_SIZE });
    }
    const { reader, repository } = this.#source;
    const { bytes } = await reader.fetchManifest(repository, descriptor.digest, {
      signal: this.#abort.signal,
    });
    this.#fetched(bytes.length, bytes.length);
    return bytes;
  }

  #reused(size: number): void {
    this.#tally.reused += size;
    this.#metrics.count('hits');
    if (this.#source.origin !== undefined) this.#metrics.count('bytesSaved', size);
  }

  /** @param fetched of `size` bytes: the others were left by an interrupted fetch */
  #fetched(fetched: number, size: number): void {
    this.#tally.fetched += fetched;
    this.#tally.reused += size - fetched;
    this.#metrics.count('misses');
    if (this.#source.origin !== undefined) this.#metrics.count('bytesSaved', size - fetched);
  }

  /** All at once; the first that fails stops the others, and is what the caller hears of. */
  async #together<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
    await Promise.all(
      items.map(async (item) => {
        try {
          throwIfAborted(this.#abort.signal);
          await work(item);
        } catch (error) {
          this.#failure ??= { error };
          this.#abort.abort(error);
        }
      }),
    );
    if (this.#failure !== undefined) throw this.#failure.error as Error;
  }
}
