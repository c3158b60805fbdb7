import { decodeZtoc, encodeZtoc, type Ztoc } from '@layercache/layer';
import { cannotStore, type Entry, type OciLayout } from '@layercache/layout';
import {
  Annotation,
  digestOf,
  errorFields,
  isLayercacheError,
  withAnnotations,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { BlobSupply } from '../pairing.js';
import {
  entrySummary,
  indexDescriptor,
  indexedLayer,
  type DescribedLayer,
  type IndexSummary,
  type StoredLayerIndex,
} from './stored-index.js';

/** Bytes. The index of a tar of some 25 GB. A larger one is not read again, so what claims to be one is ignored. */
const MAX_INDEX_SIZE = 256 * 1024 * 1024;

/** Claimed indexes of one layer that are tried. A shared cache may claim as many as it likes. */
const MAX_CANDIDATES = 8;

export interface FindIndexOptions {
  /** One with checkpoints this far apart, and no other. */
  readonly spanSize?: number | undefined;
  /** Only one that this machine made. Default false: also what a shared cache claims. */
  readonly provenOnly?: boolean | undefined;
  /** The image whose layer it is, where it is read for one: then also what came with that image. */
  readonly image?: Digest | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The layer indexes of a layout. */
export class IndexStore {
  readonly #layout: OciLayout;
  readonly #supply: BlobSupply;
  readonly #logger: Logger;

  constructor(layout: OciLayout, supply: BlobSupply, logger: Logger) {
    this.#layout = layout;
    this.#supply = supply;
    this.#logger = logger;
  }

  /**
   * The index of a layer in one of these forms, the first that has one; undefined when there is none, or none that
   * is usable. A claimed one that cannot be decoded, or is not of that layer, is rejected. No blob of a layer is read.
   */
  async find(
    diffID: Digest,
    layers: readonly DescribedLayer[],
    options: FindIndexOptions = {},
  ): Promise<StoredLayerIndex | undefined> {
    const entries = this.#layout.lookup(diffID);
    for (const layer of layers) {
      const candidates = entries
        .filter((entry) => isCandidate(entry, layer, options))
        .sort((a, b) => Number(b.proven) - Number(a.proven))
        .slice(0, MAX_CANDIDATES);
      for (const entry of candidates) {
        if (options.provenOnly === true && !(await this.#layout.has(entry.descriptor.digest))) continue;
        const index = await this.#load(entry, layer, diffID, options.signal);
        if (index === undefined) continue;
        if (options.spanSize === undefined || index.ztoc.spanSize === options.spanSize) return index;
      }
    }
    return undefined;
  }

  /** Of an index that this machine made and has, the first as {@link find} has it. Nothing is read. */
  async summary(diffID: Digest, layers: readonly DescribedLayer[]): Promise<IndexSummary | undefined> {
    const entries = this.#layout.lookup(diffID);
    for (const layer of layers) {
      for (const { descriptor, proven } of entries) {
        if (!proven || indexedLayer(descriptor) !== layer.digest) continue;
        if (await this.#layout.has(descriptor.digest, descriptor.size)) return entrySummary(descriptor);
      }
    }
    return undefined;
  }

  /** Keeps an index that this machine made, where it can be stored. */
  async write(layer: DescribedLayer, diffID: Digest, ztoc: Ztoc): Promise<StoredLayerIndex> {
    const bytes = encodeZtoc(ztoc);
    const index = { digest: digestOf(bytes), size: bytes.length, layer, diffID, ztoc, proven: true };
    try {
      await this.#layout.write(bytes, { digest: index.digest, derived: true });
      await this.#layout.put(indexDescriptor(index), { proven: true });
    } catch (error) {
      if (!cannotStore(error)) throw error;
      this.#logger.warn({ message: 'layer index not kept', layer: layer.digest, ...errorFields(error) });
    }
    return index;
  }

  /**
   * Takes back the claim that a blob is the index of a layer. The blob itself stays: it may be something else, and
   * belong to an image. One that this machine made is removed.
   */
  async reject(
    { digest, layer }: Pick<StoredLayerIndex, 'digest' | 'layer'>,
    reason: unknown,
  ): Promise<void> {
    this.#logger.warn({
      message: 'layer index rejected',
      digest,
      layer: layer.digest,
      error: String(reason),
    });
    const entries = this.#layout.lookup(digest).filter(({ descriptor }) => descriptor.digest === digest);
    if (entries.some((entry) => entry.proven)) await this.#layout.remove(digest);
    else
      await this.#layout.put(
        entries.map(({ descriptor }) => withAnnotations(descriptor, { [Annotation.sociLayerDigest]: '' })),
      );
  }

  async #load(
    { descriptor, proven }: Entry,
    layer: DescribedLayer,
    diffID: Digest,
    signal: AbortSignal | undefined,
  ): Promise<StoredLayerIndex | undefined> {
    const { digest, size } = descriptor;
    try {
      if (size <= MAX_INDEX_SIZE) await this.#supply(descriptor, signal);
      const bytes = await this.#layout.readBytes(digest, { maxSize: MAX_INDEX_SIZE, signal });
      const ztoc = decodeZtoc(bytes);
      if (this.#describes(ztoc, layer)) return { digest, size, layer, diffID, ztoc, proven };
      await this.reject({ digest, layer }, 'it is not of this layer');
    } catch (error) {
      if (isLayercacheError(error, 'DOCUMENT_INVALID')) await this.reject({ digest, layer }, error);
      // Without it the layer is read; where that cannot be had either, its error is the one to hear of.
      else if (
        !isLayercacheError(error, 'NOT_FOUND', 'DIGEST_MISMATCH', 'NETWORK', 'REGISTRY', 'UNAUTHORIZED')
      )
        throw error;
    }
    return undefined;
  }

  #describes(ztoc: Ztoc, { digest, form }: DescribedLayer): boolean {
    const known = this.#layout.lookup(digest).find((entry) => entry.descriptor.digest === digest);
    return (
      (ztoc.compression === 'gzip') === (form === 'tar+gzip') &&
      (known === undefined || known.descriptor.size === ztoc.compressedSize)
    );
  }
}

/** Whether an entry may be the index of a layer: made here, from a shared cache, or come with that very image. */
function isCandidate(
  { descriptor, proven }: Entry,
  layer: DescribedLayer,
  { provenOnly = false, image }: FindIndexOptions,
): boolean {
  if (indexedLayer(descriptor) !== layer.digest) return false;
  if (proven) return true;
  const only = descriptor.annotations?.[Annotation.indexedImage];
  return !provenOnly && (only === undefined || only === image);
}
