import type { ReportActivity, ReportData, ReportForm, ReportImage } from '../../report-page/report-data.js';
import type { Census, CountedBlob, CountedImage, CountedLayer } from './census.js';
import { imageStats, type CacheStats } from './stats.js';

/** The page stays readable, and of a few megabytes, however many images there are. */
const MAX_IMAGES = 500;

/** What the HTML report shows. */
export function reportData(census: Census, stats: CacheStats, activity: ReportActivity): ReportData {
  const sorted = [...census.images].sort((a, b) => imageStats(b).size - imageStats(a).size);
  const listed = sorted.slice(0, MAX_IMAGES);
  const rest = sorted.slice(MAX_IMAGES);
  const layers = new LayerList();
  const images = listed.map((image) => describeImage(image, layers));
  const inLayers = new Set(layers.counted.flatMap(({ forms }) => forms));
  const blobs = [...census.blobs.values()];
  const { pairs, deduplication } = stats;
  return {
    version: 1,
    at: stats.at.toISOString(),
    totals: {
      disk: stats.disk.total,
      blobs: stats.blobs,
      blobSize: stats.disk.blobs,
      entries: stats.entries,
      images: sorted.length,
      ...deduplication,
      ...pairs,
      reclaimable: stats.reclaimable.free,
    },
    kinds: stats.kinds.map(({ kind, blobs: count, size, reclaimable }) => ({
      kind,
      blobs: count,
      size,
      reclaimable,
    })),
    ages: stats.ages.map(({ until, ...band }) => ({ until: until ?? null, ...band })),
    layers: layers.counted.map(({ digest, diffID, forms }) => ({
      digest,
      diffID: diffID ?? null,
      forms: forms.map(describeForm),
    })),
    images,
    more: { images: rest.length, unique: sum(rest, (image) => imageStats(image).unique) },
    sharedOther: sum(
      blobs.filter((blob) => blob.images.size > 1 && !inLayers.has(blob)),
      bytes,
    ),
    rest: stats.kinds.flatMap(({ kind }) => {
      const size = sum(
        blobs.filter((blob) => blob.kind === kind && blob.images.size === 0),
        bytes,
      );
      return size > 0 ? [{ kind, size }] : [];
    }),
    activity,
  };
}

/** Each layer once: images that share it have the same position. */
class LayerList {
  readonly counted: CountedLayer[] = [];
  readonly #positions = new Map<string, number>();

  position(layer: CountedLayer): number {
    const known = this.#positions.get(layer.digest);
    if (known !== undefined) return known;
    this.#positions.set(layer.digest, this.counted.length);
    return this.counted.push(layer) - 1;
  }
}

function describeImage(image: CountedImage, layers: LayerList): ReportImage {
  const { digest, names, pinned, size, shared, unique, usedAt } = imageStats(image);
  const inLayers = new Set(image.layers.flatMap(({ forms }) => forms));
  return {
    digest,
    names,
    pinned,
    size,
    shared,
    unique,
    documents: sum(
      [...image.blobs].filter((blob) => blob.images.size === 1 && !inLayers.has(blob)),
      bytes,
    ),
    usedAt: usedAt?.toISOString() ?? null,
    layers: image.layers.map((layer) => layers.position(layer)),
  };
}

function describeForm({ digest, kind, size = 0, images }: CountedBlob): ReportForm {
  return { digest, kind, size, images: images.size };
}

function bytes({ size = 0 }: CountedBlob): number {
  return size;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
