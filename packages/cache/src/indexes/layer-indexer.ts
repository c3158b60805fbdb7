import { indexLayer, type LayerIndex } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import {
  IntegrityError,
  LayercacheError,
  SingleFlight,
  claimedDiffID,
  isLayercacheError,
  layerForm,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { checkBlob } from '../check-blob.js';
import { layerRecord, type LayerRecord } from '../layer-record.js';
import { openBlob } from '../open-blob.js';
import type { BlobSupply, Pairing } from '../pairing.js';
import type { IndexStore } from './index-store.js';
import { summaryOf, type DescribedLayer, type IndexSummary, type StoredLayerIndex } from './stored-index.js';

export interface IndexProgress {
  /** The layer. */
  readonly descriptor: Descriptor;
  /** Bytes of it read so far. */
  readonly read: number;
  /** `cached`: its index was here already. */
  readonly state: 'reading' | 'done' | 'cached';
}

export interface LayerIndexOptions {
  /** Bytes of tar between checkpoints, at least. Default: what is there, else 4 MiB. */
  readonly spanSize?: number | undefined;
  /** Bring the layer here and index it, instead of believing an index that came from elsewhere. Default false. */
  readonly provenOnly?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: IndexProgress) => void) | undefined;
}

/** An index, and what it took. */
export interface Indexed {
  readonly index: StoredLayerIndex;
  readonly cached: boolean;
  /** Bytes of the layer that were read. */
  readonly bytesRead: number;
}

/** How an index is looked for. */
export interface SearchOptions extends LayerIndexOptions {
  /** The manifest of the image whose layer it is. */
  readonly image?: Digest | undefined;
}

/** An index without its contents, and what it took. */
export interface Summarised extends IndexSummary {
  /** Whether it came from elsewhere, and nobody checked it here. */
  readonly claimed: boolean;
  readonly cached: boolean;
  /** Bytes of the layer that were read. */
  readonly bytesRead: number;
}

export interface IndexerContext {
  readonly layout: OciLayout;
  readonly supply: BlobSupply;
  readonly pairing: Pairing;
  readonly store: IndexStore;
}

/** Compressed forms of one layer that are tried: a shared cache may claim as many as it likes. */
const MAX_FORMS = 8;

/** Finds the index of a layer, or makes it in one pass, which also proves digest and diffID. */
export class LayerIndexer {
  readonly #context: IndexerContext;
  readonly #flights = new SingleFlight<Indexed>();
  /** By the form that is read, whichever name the layer was asked by. */
  readonly #readings = new SingleFlight<Indexed>();

  constructor(context: IndexerContext) {
    this.#context = context;
  }

  /** What there is to say of an index, which is made when it is not here. One that this machine made is not read. */
  async summary(key: Digest, options: SearchOptions = {}): Promise<Summarised> {
    const record = this.#record(key);
    if (record.diffID !== undefined && options.spanSize === undefined) {
      const sources = await this.#sources(record);
      const known = await this.#context.store.summary(record.diffID, describedLayers(sources));
      const [first] = sources;
      if (known !== undefined && first !== undefined) {
        options.onProgress?.({ descriptor: first, read: 0, state: 'cached' });
        return { ...known, claimed: false, cached: true, bytesRead: 0 };
      }
    }
    const { index, cached, bytesRead } = await this.index(key, options);
    return { ...summaryOf(index), claimed: !index.proven, cached, bytesRead };
  }

  /**
   * The index of the layer that a digest or a diffID names. Asked by a digest, it describes that form, or the tar
   * of a zstd layer; asked by a diffID, the form that costs least to read.
   *
   * @throws IntegrityError `DIFFID_MISMATCH`, `DIGEST_MISMATCH`
   * @throws LayercacheError `NOT_FOUND`, `COMPRESSION_INVALID`, `ARCHIVE_INVALID`
   */
  index(key: Digest, options: SearchOptions = {}): Promise<Indexed> {
    const { spanSize, signal, onProgress, image } = options;
    const flight = `${key} ${spanSize ?? ''} ${image ?? ''} ${options.provenOnly === true ? 'proven' : ''}`;
    return this.#flights.run(flight, signal, async (shared) => {
      const record = this.#record(key);
      const { diffID } = record;
      const sources = await this.#sources(record);
      // What can be read here is not believed from elsewhere.
      const provenOnly = options.provenOnly === true || (await this.#isHere(sources));
      const found =
        diffID === undefined
          ? undefined
          : await this.#context.store.find(diffID, describedLayers(sources), {
              spanSize,
              image,
              provenOnly,
              signal: shared,
            });
      const [first] = sources;
      if (found !== undefined) {
        if (first !== undefined) onProgress?.({ descriptor: first, read: 0, state: 'cached' });
        return { index: found, cached: true, bytesRead: 0 };
      }
      return this.#make(key, sources, { spanSize, signal: shared, onProgress });
    });
  }

  #record(key: Digest): LayerRecord {
    const record = layerRecord(this.#context.layout, key);
    if (record !== undefined) return record;
    throw new LayercacheError(
      'NOT_FOUND',
      `no layer ${key} is in the cache, neither by digest nor by diffID`,
    );
  }

  async #isHere(sources: readonly Descriptor[]): Promise<boolean> {
    for (const { digest, size } of sources) if (await this.#context.layout.has(digest, size)) return true;
    return false;
  }

  /**
   * Forms of a layer to read, the cheapest first. By digest, that one alone, or the tar that it was proven to contain: a
   * claim makes no other the same.
   */
  async #sources({ key, diffID, tar, compressed }: LayerRecord): Promise<Descriptor[]> {
    const own = compressed.find(({ descriptor }) => descriptor.digest === key);
    if (own !== undefined && (!own.proven || tar === undefined)) return [own.descriptor];
    if (own === undefined && key !== diffID) return [];
    const forms = own === undefined ? compressed.slice(0, MAX_FORMS) : [own];
    const all = [...(tar === undefined ? [] : [tar]), ...forms].map((entry) => entry.descriptor);
    const here = await Promise.all(all.map(({ digest, size }) => this.#context.layout.has(digest, size)));
    return [...all.filter((_, at) => here[at]), ...all.filter((_, at) => here[at] !== true)];
  }

  async #make(key: Digest, sources: readonly Descriptor[], options: LayerIndexOptions): Promise<Indexed> {
    let last: unknown;
    for (const source of sources) {
      try {
        return await this.#readings.run(
          `${source.digest} ${options.spanSize ?? ''}`,
          options.signal,
          (signal) => this.#read(source, { ...options, signal }),
        );
      } catch (error) {
        // Another form of the layer may still be good.
        if (
          !isLayercacheError(error, 'DIFFID_MISMATCH', 'DIGEST_MISMATCH', 'NOT_FOUND', 'COMPRESSION_INVALID')
        )
          throw error;
        last ??= error;
      }
    }
    if (last !== undefined) throw last as Error;
    throw new LayercacheError(
      'NOT_FOUND',
      `layer ${key} is not in the cache; a tar claims to be it uncompressed, which cannot be checked without it`,
    );
  }

  async #read(source: Descriptor, { spanSize, signal, onProgress }: LayerIndexOptions): Promise<Indexed> {
    const { layout, supply, pairing, store } = this.#context;
    const form = layerForm(source.mediaType);
    if (form === undefined) throw new TypeError('a layer record has layers');
    // Hashed where it is indexed, and not twice.
    const opened = await openBlob(layout, supply, source, { signal, verify: false });
    let read = 0;
    const counted = async function* (): AsyncGenerator<Uint8Array> {
      for await (const bytes of opened) {
        yield bytes as Uint8Array;
        read += (bytes as Uint8Array).length;
        onProgress?.({ descriptor: source, read, state: 'reading' });
      }
    };
    const claimed = claimedDiffID(source);
    let made: LayerIndex;
    try {
      made = await indexLayer(counted(), {
        form,
        digest: source.digest,
        diffID: claimed,
        signal,
        ...(spanSize === undefined ? {} : { spanSize }),
      });
    } catch (error) {
      throw await this.#judged(source, error, signal);
    } finally {
      opened.destroy();
    }
    if (form !== 'tar') await pairing.settle(source, made.diffID);
    const layer: DescribedLayer =
      form === 'tar+gzip' ? { digest: source.digest, form } : { digest: made.diffID, form: 'tar' };
    const index = await store.write(layer, made.diffID, made.ztoc);
    onProgress?.({ descriptor: source, read, state: 'done' });
    return { index, cached: false, bytesRead: read };
  }

  /** Finds why indexing failed, and repairs it: a wrong claim is corrected, a corrupt blob dropped. */
  async #judged(source: Descriptor, error: unknown, signal: AbortSignal | undefined): Promise<unknown> {
    const { layout, pairing } = this.#context;
    try {
      if (error instanceof IntegrityError && error.code === 'DIFFID_MISMATCH')
        await pairing.settle(source, error.found as Digest);
      if (isLayercacheError(error, 'DIGEST_MISMATCH', 'COMPRESSION_INVALID', 'ARCHIVE_INVALID'))
        await checkBlob(layout, source.digest, signal);
    } catch (better) {
      return better;
    }
    return error;
  }
}

/** What indexes of these forms of a layer describe. That of a zstd layer cannot be known without its diffID. */
function describedLayers(sources: readonly Descriptor[]): DescribedLayer[] {
  return sources.flatMap((source): DescribedLayer[] => {
    const form = layerForm(source.mediaType);
    if (form === 'tar+gzip' || form === 'tar') return [{ digest: source.digest, form }];
    const diffID = claimedDiffID(source);
    return diffID === undefined ? [] : [{ digest: diffID, form: 'tar' }];
  });
}
