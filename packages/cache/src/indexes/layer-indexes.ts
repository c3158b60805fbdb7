import type { Readable } from 'node:stream';
import { MergedView, parseTimestamp, readRange, type IndexedLayer } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import {
  IntegrityError,
  LayercacheError,
  MediaType,
  isLayercacheError,
  layerForm,
  parseDigest,
  type Descriptor,
  type Digest,
  type Platform,
} from '@layercache/oci';
import { checkBlob } from '../check-blob.js';
import type { Layer } from '../layer.js';
import type { BlobSupply, Pairing } from '../pairing.js';
import { eachOf } from '../share/each.js';
import type { RemoteBlobs } from '../share/remote-blobs.js';
import { begunStream } from './begun-stream.js';
import { imageLayers } from './image-layers.js';
import { ImageView, type ReadFileOptions } from './image-view.js';
import type { IndexStore } from './index-store.js';
import { LayerBytes } from './layer-bytes.js';
import { LayerIndexer, type Indexed, type LayerIndexOptions } from './layer-indexer.js';
import { encodeSociIndex } from './soci-index.js';
import type { StoredLayerIndex } from './stored-index.js';

export interface IndexOptions extends LayerIndexOptions {
  /** Which image of an index: Linux on this machine's processor unless said. */
  readonly platform?: Platform | undefined;
  /** Layers to index at a time. Default: the cache's `concurrency`. */
  readonly concurrency?: number | undefined;
}

/** One layer in an {@link IndexReport}. */
export interface IndexedLayerReport {
  /** As the image has it, or as it was asked for. */
  readonly digest: Digest;
  readonly diffID: Digest;
  /** Of the blob that holds the index. */
  readonly indexDigest: Digest;
  /** Entries of its tar. */
  readonly files: number;
  /** Whether the index was there already. */
  readonly cached: boolean;
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
  readonly signal?: AbortSignal | undefined;
}

export interface LayerIndexesContext {
  readonly layout: OciLayout;
  readonly supply: BlobSupply;
  readonly blobs: RemoteBlobs;
  readonly pairing: Pairing;
  readonly store: IndexStore;
  readonly concurrency: number;
  /** The manifest that a name means. Throws `NOT_FOUND`. */
  readonly image: (name: string) => Descriptor;
  /** The layer that a digest or diffID names, here or at a remote. Rejects with `NOT_FOUND`. */
  readonly find: (key: Digest, signal: AbortSignal | undefined) => Promise<Layer>;
}

/** What a cache can do with the insides of its layers. */
export class LayerIndexes {
  readonly #context: LayerIndexesContext;
  readonly #indexer: LayerIndexer;
  /** Errors after which an index was dropped, so that it is worth to try again. */
  readonly #dropped = new WeakSet<Error>();

  constructor(context: LayerIndexesContext) {
    this.#context = context;
    this.#indexer = new LayerIndexer(context);
  }

  async index(name: string, options: IndexOptions = {}): Promise<IndexReport> {
    const image = this.#imageOrLayer(name);
    const layers = typeof image === 'string' ? [image] : await this.#layersOf(image, options);
    const indexed = await this.#indexAll(layers, options);
    const reports = [...indexed].map(([digest, { index, cached }]) => ({
      digest,
      diffID: index.diffID,
      indexDigest: index.digest,
      files: index.ztoc.entries.length,
      cached,
    }));
    return {
      layers: reports,
      hits: reports.filter(({ cached }) => cached).length,
      files: reports.reduce((sum, { files }) => sum + files, 0),
      bytesRead: [...indexed.values()].reduce((sum, { bytesRead }) => sum + bytesRead, 0),
    };
  }

  async layerIndex(digestOrDiffID: string, options: LayerIndexOptions = {}): Promise<StoredLayerIndex> {
    return (await this.#indexOf(parseDigest(digestOrDiffID), options)).index;
  }

  async view(name: string, { platform, signal }: ViewOptions = {}): Promise<ImageView> {
    const { layout, supply, image } = this.#context;
    const { manifest, config, layers } = await imageLayers(layout, supply, image(name), { platform, signal });
    const digests = layers.map((layer) => layer.digest);
    const indexed = await this.#indexAll(digests, { signal });
    const indexes: StoredLayerIndex[] = [];
    for (const [position, layer] of layers.entries()) {
      const index = indexed.get(layer.digest)?.index;
      const claimed = config.rootfs.diff_ids[position];
      if (index === undefined || claimed === undefined) throw new TypeError('every layer was indexed');
      if (index.diffID !== claimed) await this.#contradicted(manifest, layer, claimed, signal);
      indexes.push(index);
    }
    const merged = MergedView.of(
      indexes.map(({ diffID, ztoc }) => ({ diffID, entries: ztoc.entries })),
      { time: config.created === undefined ? undefined : parseTimestamp(config.created) },
    );
    return new ImageView(manifest, merged, indexes, {
      bytes: (index) => this.#bytes(index),
      begun: (index, pieces) => begunStream(this.#guarded(index, pieces)),
      openTar: (diffID, stop) => this.#tar(diffID, stop),
    });
  }

  openFile(image: string, path: string, options: ViewOptions = {}): Promise<Readable> {
    return this.#twice(async () => (await this.view(image, options)).open(path, options));
  }

  readRange(
    digestOrDiffID: string,
    start: number,
    end: number,
    options: ReadFileOptions = {},
  ): Promise<Readable> {
    return this.#twice(async () => {
      const index = await this.layerIndex(digestOrDiffID, options);
      return begunStream(this.#guarded(index, readRange(this.#bytes(index), start, end, options)));
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
    const { layout, supply } = this.#context;
    const { manifest, layers } = await imageLayers(layout, supply, image, options);
    const readable = layers.filter((layer) => layerForm(layer.mediaType) !== 'tar+zstd');
    if (readable.length === 0) {
      throw new LayercacheError(
        'UNSUPPORTED',
        `image ${manifest.digest} has no layer that SOCI can read: none is a gzip or a plain tar`,
      );
    }
    const digests = readable.map((layer) => layer.digest);
    const indexed = await this.#indexAll(digests, { signal: options.signal });
    const pairs = readable.flatMap((layer) => {
      const found = indexed.get(layer.digest);
      return found === undefined ? [] : [{ layer, index: found.index }];
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
      if (!isLayercacheError(error, 'NOT_FOUND') || !/^sha(256|512):/.test(name)) throw error;
      return parseDigest(name);
    }
  }

  async #layersOf(image: Descriptor, options: ViewOptions): Promise<Digest[]> {
    const { layout, supply } = this.#context;
    return (await imageLayers(layout, supply, image, options)).layers.map((layer) => layer.digest);
  }

  /** Each layer once, in order. The first that fails stops the others. */
  async #indexAll(layers: readonly Digest[], options: IndexOptions): Promise<Map<Digest, Indexed>> {
    const { concurrency = this.#context.concurrency, spanSize, onProgress } = options;
    const distinct = [...new Set(layers)];
    const abort = new AbortController();
    const signal =
      options.signal === undefined ? abort.signal : AbortSignal.any([options.signal, abort.signal]);
    const found = new Map<Digest, Indexed>();
    await eachOf(distinct, { concurrency, signal }, async (layer) => {
      try {
        found.set(layer, await this.#indexOf(layer, { spanSize, signal, onProgress }));
      } catch (error) {
        abort.abort(error);
        throw error;
      }
    });
    return new Map(distinct.map((layer) => [layer, found.get(layer)] as [Digest, Indexed]));
  }

  async #indexOf(key: Digest, options: LayerIndexOptions): Promise<Indexed> {
    await this.#context.find(key, options.signal);
    return this.#indexer.index(key, options);
  }

  #bytes({ layer, diffID, ztoc }: StoredLayerIndex): IndexedLayer {
    const { layout, blobs } = this.#context;
    const entry = layout.lookup(layer.digest).find(({ descriptor }) => descriptor.digest === layer.digest);
    const { digest, form } = layer;
    const tar = { mediaType: MediaType.layer, digest, size: ztoc.compressedSize };
    const derive = async (signal: AbortSignal | undefined): Promise<Readable> =>
      (await this.#context.find(diffID, signal)).uncompressed({ keep: true, signal });
    const source = { layout, blobs, derive: form === 'tar' ? derive : undefined };
    return { ztoc, bytes: new LayerBytes(entry?.descriptor ?? tar, source) };
  }

  async *#tar(diffID: Digest, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const layer = await this.#context.find(diffID, signal);
    yield* (await layer.uncompressed({ keep: false, signal })) as AsyncIterable<Uint8Array>;
  }

  /**
   * When a layer and its index do not fit, one of them is wrong. An index that others made goes, and is made anew;
   * otherwise it is the layer, which is dropped where it is here.
   */
  async *#guarded(index: StoredLayerIndex, pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* pieces;
    } catch (error) {
      if (!isLayercacheError(error, 'DIGEST_MISMATCH', 'COMPRESSION_INVALID', 'UNSUPPORTED')) throw error;
      if (index.proven) await checkBlob(this.#context.layout, index.layer.digest);
      else {
        await this.#context.store.drop(index, error);
        this.#dropped.add(error);
      }
      throw error;
    }
  }

  /** Once more when an index was dropped. */
  async #twice<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error) || !this.#dropped.has(error)) throw error;
      return work();
    }
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
