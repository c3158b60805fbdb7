import pLimit, { type LimitFunction } from 'p-limit';
import {
  Annotation,
  LayercacheError,
  MAX_MANIFEST_SIZE,
  claimedDiffID,
  digestOf,
  isIndexMediaType,
  isNondistributable,
  layerForm,
  throwIfAborted,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
  type Platform,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { MAX_CONFIG_SIZE, claimPairs, isImageConfig, parseManifest, readImageConfig } from './image-walk.js';
import type { MetricsRecorder } from './metrics/metrics.js';
import type { Pairing } from './pairing.js';
import { hostPlatform, selectPlatform } from './platform.js';
import { Holds } from './policy/holds.js';
import { withOrigin } from './share/blob-origin.js';
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
  /** What the entry of the image says of how long it stays. */
  readonly renew: (named: Descriptor) => Descriptor;
  readonly metrics: MetricsRecorder;
}

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
  readonly #pairing: Pairing;
  readonly #holds: Holds;
  readonly #renew: (named: Descriptor) => Descriptor;
  readonly #metrics: MetricsRecorder;
  readonly #limit: LimitFunction;
  readonly #tally: Tally = { layers: new Map(), skipped: new Map(), fetched: 0, reused: 0 };
  readonly #abort = new AbortController();
  /** What went wrong first. What it stopped fails, too, but that is not news. */
  #failure: { readonly error: unknown } | undefined;

  constructor(layout: OciLayout, source: ImageSource, options: AddOptions, context: AddContext) {
    this.#layout = layout;
    this.#source = source;
    this.#options = options;
    this.#logger = context.logger;
    this.#pairing = context.pairing;
    this.#renew = context.renew;
    this.#holds = new Holds(layout);
    this.#metrics = context.metrics;
    this.#limit = pLimit(context.concurrency);
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
      const descriptor = await this.#addRoot(found, await this.#manifestBytes(found));
      const name = this.#options.name ?? this.#source.name;
      const named =
        name === undefined
          ? descriptor
          : withAnnotations(descriptor, { [Annotation.refName]: name, [Annotation.containerdName]: name });
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

  async #addChild(child: Descriptor): Promise<Descriptor> {
    await this.#layout.put(await this.#addManifest(child, await this.#manifestBytes(child)));
    return child;
  }

  /** Stores a manifest after everything it refers to, so that what is found is whole. Its entry is the caller's. */
  async #addManifest(descriptor: Descriptor, bytes: Uint8Array): Promise<Descriptor> {
    const parsed = parseManifest(descriptor, bytes);
    if (parsed.kind === 'index') {
      await this.#together(parsed.index.manifests, (child) => this.#addChild(child));
    } else {
      await this.#addLayersOf(descriptor, parsed.manifest);
    }
    await this.#layout.write(bytes, { digest: descriptor.digest, size: descriptor.size });
    await this.#holds.hold(descriptor);
    return descriptor;
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
    await this.#limit(() => this.#addBlob(manifest.config));
    const config = await this.#layout.readBytes(manifest.config.digest, { maxSize: MAX_CONFIG_SIZE });
    const layers = isImageConfig(manifest.config)
      ? claimPairs(manifest, readImageConfig(manifest, config), descriptor.digest)
      : manifest.layers;
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
    const before = this.#layout
      .lookup(layer.digest)
      .find((entry) => entry.descriptor.digest === layer.digest);
    await this.#addBlob(layer);
    if (before !== undefined) await this.#settleClaims(before.descriptor, layer);
  }

  /** Two sources that disagree on a diffID cannot both be right: only decompressing tells. */
  async #settleClaims(before: Descriptor, layer: Descriptor): Promise<void> {
    const [earlier, claimed] = [claimedDiffID(before), claimedDiffID(layer)];
    if (earlier === undefined || claimed === undefined || earlier === claimed) return;
    await this.#pairing.prove(layer, this.#abort.signal);
  }

  async #addBlob(descriptor: Descriptor): Promise<void> {
    const { onProgress } = this.#options;
    const signal = this.#abort.signal;
    if (await this.#holds.hold(descriptor)) {
      this.#reused(descriptor.size);
      onProgress?.({ descriptor, received: descriptor.size, state: 'kept' });
    } else {
      const { fetched } = await this.#layout.ingest(
        { digest: descriptor.digest, size: descriptor.size },
        async (offset, stop) => {
          const range = offset === 0 ? {} : { range: { first: offset } };
          return this.#source.reader.fetchBlob(this.#source.repository, descriptor.digest, {
            ...range,
            signal: stop,
          });
        },
        {
          signal,
          onProgress: (received) => onProgress?.({ descriptor, received, state: 'receiving' }),
        },
      );
      await this.#holds.hold(descriptor);
      this.#fetched(fetched, descriptor.size);
      onProgress?.({ descriptor, received: descriptor.size, state: 'done' });
    }
    const { origin } = this.#source;
    await this.#layout.put(origin === undefined ? descriptor : withOrigin(descriptor, origin));
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
