import type { Readable } from 'node:stream';
import { MergedView, parseTimestamp, readRange } from '@layercache/layer';
import {
  IntegrityError,
  LayercacheError,
  isLayercacheError,
  layerForm,
  parseDigest,
  type Descriptor,
  type Digest,
  type Platform,
} from '@layercache/oci';
import { looksLikeDigest } from '../entries/names.js';
import { eachOf } from '../share/each.js';
import { imageLayers, type ImageLayers } from './image-layers.js';
import { ImageView, type ReadFileOptions } from './image-view.js';
import { LayerAccess, type LayerAccessContext } from './layer-access.js';
import {
  LayerIndexer,
  type Indexed,
  type IndexerContext,
  type LayerIndexOptions,
  type SearchOptions,
} from './layer-indexer.js';
import { encodeSociIndex } from './soci-index.js';
import type { IndexSummary, StoredLayerIndex } from './stored-index.js';

export interface IndexOptions extends LayerIndexOptions {
  /** Which image of an index: Linux on this machine's processor unless said. */
  readonly platform?: Platform | undefined;
  /** Layers to index at a time. Default: the cache's `concurrency`. */
  readonly concurrency?: number | undefined;
}

/** One layer in an {@link IndexReport}. */
export interface IndexedLayerReport extends IndexSummary {
  /** As the image has it, or as it was asked for. */
  readonly digest: Digest;
  /** Whether the index was there already. */
  readonly cached: boolean;
  /** Whether it came from elsewhere, and nobody checked it here: the layer itself is not on this disk. */
  readonly claimed: boolean;
}

export interface IndexReport {
  /** Each layer once, bottom to top. */
  readonly layers: readonly IndexedLayerReport[];
  /** How many were there already. */
  readonly hits: number;
  readonly files: number;
  /** Bytes of layers that were read to make indexes. */
  readonly bytesRead: number;
}

export interface ViewOptions {
  /** Which image of an index: Linux on this machine's processor unless said. */
  readonly platform?: Platform | undefined;
  /** Bring the layers here and index them, instead of believing indexes that came from elsewhere. Default false. */
  readonly provenOnly?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

type IndexAllOptions = Pick<SearchOptions, 'image' | 'provenOnly' | 'signal'>;

export interface LayerIndexesContext extends IndexerContext, LayerAccessContext {
  readonly concurrency: number;
  /** The manifest that a name means. Throws `NOT_FOUND`. */
  readonly image: (name: string) => Descriptor;
}

/** What a cache can do with the insides of its layers. */
export class LayerIndexes {
  readonly #context: LayerIndexesContext;
  readonly #indexer: LayerIndexer;
  readonly #access: LayerAccess;

  constructor(context: LayerIndexesContext) {
    this.#context = context;
    this.#indexer = new LayerIndexer(context);
    this.#access = new LayerAccess(context);
  }

  async index(name: string, options: IndexOptions = {}): Promise<IndexReport> {
    const image = this.#imageOrLayer(name);
    const found = typeof image === 'string' ? undefined : await this.#layersOf(image, options);
    const layers = found?.layers.map((layer) => layer.digest) ?? [image as Digest];
    const indexed = await this.#eachLayer(layers, options, async (digest, each) => {
      await this.#context.find(digest, each.signal);
      const summary = await this.#indexer.summary(digest, { ...each, image: found?.manifest.digest });
      return { digest, ...summary };
    });
    return {
      layers: indexed.map(({ digest, diffID, indexDigest, files, cached, claimed }) => ({
        digest,
        diffID,
        indexDigest,
        files,
        cached,
        claimed,
      })),
      hits: indexed.filter(({ cached }) => cached).length,
      files: indexed.reduce((sum, { files }) => sum + files, 0),
      bytesRead: indexed.reduce((sum, { bytesRead }) => sum + bytesRead, 0),
    };
  }

  async layerIndex(digestOrDiffID: string, options: LayerIndexOptions = {}): Promise<StoredLayerIndex> {
    return (await this.#indexOf(parseDigest(digestOrDiffID), options)).index;
  }

  async view(name: string, options: ViewOptions = {}): Promise<ImageView> {
    const { signal } = options;
    const { manifest, config, layers } = await this.#layersOf(this.#context.image(name), options);
    const digests = layers.map((layer) => layer.digest);
    const indexed = await this.#indexAll(digests, { ...options, image: manifest.digest });
    const indexes: StoredLayerIndex[] = [];
    for (const [position, layer] of layers.entries()) {
      const index = indexed.get(layer.digest);
      const claimed = config.rootfs.diff_ids[position];
      if (index === undefined || claimed === undefined) throw new TypeError('every layer was indexed');
      if (index.diffID !== claimed) await this.#contradicted(manifest, layer, claimed, signal);
      indexes.push(index);
    }
    const merged = await MergedView.merge(
      indexes.map(({ diffID, ztoc }) => ({ diffID, entries: ztoc.entries })),
      { time: config.created === undefined ? undefined : parseTimestamp(config.created), signal },
    );
    const proven = (): Promise<ImageView> => this.view(manifest.digest, { provenOnly: true, signal });
    return new ImageView(manifest, merged, indexes, this.#access, proven);
  }

  openFile(image: string, path: string, options: ViewOptions = {}): Promise<Readable> {
    return this.#access.twice(async () => (await this.view(image, options)).open(path, options));
  }

  readRange(
    digestOrDiffID: string,
    start: number,
    end: number,
    options: ReadFileOptions = {},
  ): Promise<Readable> {
    return this.#access.twice(async () => {
      const index = await this.layerIndex(digestOrDiffID, options);
      return this.#access.begun(index, readRange(this.#access.bytes(index), start, end, options));
    });
  }

  async exportSoci(name: string, options: ViewOptions = {}): Promise<Descriptor> {
    const made = await this.sociIndex(this.#context.image(name), options);
    await this.#context.layout.sync();
    return made;
  }

  /**
   * The SOCI index manifest of an image, as an entry.
   *
   * @throws LayercacheError `UNSUPPORTED` when it has no layer that SOCI can read
   */
  async sociIndex(image: Descriptor, options: ViewOptions = {}): Promise<Descriptor> {
    const { layout } = this.#context;
    const { manifest, layers } = await this.#layersOf(image, options);
    const readable = layers.filter((layer) => layerForm(layer.mediaType) !== 'tar+zstd');
    if (readable.length === 0) {
      throw new LayercacheError(
        'UNSUPPORTED',
        `image ${manifest.digest} has no layer that SOCI can read: none is a gzip or a plain tar`,
      );
    }
    const digests = readable.map((layer) => layer.digest);
    // What this machine hands on under its own name, it has made.
    const indexed = await this.#indexAll(digests, { provenOnly: true, signal: options.signal });
    const pairs = readable.flatMap((layer) => {
      const index = indexed.get(layer.digest);
      return index === undefined ? [] : [{ layer, index }];
    });
    const soci = encodeSociIndex(manifest, pairs);
    await layout.write(soci.config.bytes);
    await layout.write(soci.bytes);
    await layout.put([soci.config.descriptor, soci.descriptor]);
    return soci.descriptor;
  }

  #imageOrLayer(name: string): Descriptor | Digest {
    try {
      return this.#context.image(name);
    } catch (error) {
      if (!isLayercacheError(error, 'NOT_FOUND') || !looksLikeDigest(name)) throw error;
      return parseDigest(name);
    }
  }

  #layersOf(image: Descriptor, options: ViewOptions): Promise<ImageLayers> {
    const { layout, supply } = this.#context;
    return imageLayers(layout, supply, image, options);
  }

  async #indexAll(
    layers: readonly Digest[],
    { image, provenOnly, signal }: IndexAllOptions,
  ): Promise<Map<Digest, StoredLayerIndex>> {
    const indexed = await this.#eachLayer(layers, { signal }, async (digest, options) => {
      const { index } = await this.#indexOf(digest, { ...options, image, provenOnly });
      return [digest, index] as const;
    });
    return new Map(indexed);
  }

  /** Each layer once. Resolves in their order; the first that fails stops the others. */
  async #eachLayer<T>(
    layers: readonly Digest[],
    options: IndexOptions,
    work: (layer: Digest, options: LayerIndexOptions) => Promise<T>,
  ): Promise<T[]> {
    const { concurrency = this.#context.concurrency, spanSize, provenOnly, onProgress } = options;
    const distinct = [...new Set(layers)];
    const abort = new AbortController();
    const signal =
      options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
    const done = new Map<Digest, T>();
    await eachOf(distinct, { concurrency, signal }, async (layer) => {
      try {
        done.set(layer, await work(layer, { spanSize, provenOnly, signal, onProgress }));
      } catch (error) {
        abort.abort(error);
        throw error;
      }
    });
    return distinct.map((layer) => done.get(layer) as T);
  }

  async #indexOf(key: Digest, options: SearchOptions): Promise<Indexed> {
    await this.#context.find(key, options.signal);
    return this.#indexer.index(key, options);
  }

  /** An image and the cache disagree on a diffID: only decompressing tells who is right. */
  async #contradicted(
    image: Descriptor,
    layer: Descriptor,
    claimed: Digest,
    signal: AbortSignal | undefined,
  ): Promise<never> {
    const found = await (await this.#context.find(layer.digest, signal)).prove({ signal });
    throw new IntegrityError(
      'DIFFID_MISMATCH',
      `image ${image.digest} claims the diffID ${claimed} for layer ${layer.digest}, but its tar hashes to ${found}: do not trust where the image came from`,
      { expected: claimed, found },
    );
  }
}
