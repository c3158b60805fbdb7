import type { Digest } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { layerNames, layerRecord } from '../layer-record.js';
import type { Reclaimable } from '../policy/retention.js';
import { BLOB_KINDS, type BlobKind } from './blob-kind.js';
import { takeCensus, type Census, type CountedBlob, type CountedImage } from './census.js';
import { diskUse, type DiskUse } from './folder-size.js';

export interface StatsOptions {
  /** How many of the largest blobs are listed. Default: 10. */
  readonly top?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is in a cache and what it costs. All sizes are bytes of files that are on this disk. */
export interface CacheStats {
  readonly at: Date;
  readonly dir: string;
  /** Descriptors in index.json, and those not committed yet. */
  readonly entries: number;
  readonly blobs: number;
  /** Blobs that an entry or a manifest names and that are not here: at a remote, of other platforms, or gone. */
  readonly absent: number;
  readonly disk: DiskUse;
  readonly kinds: readonly KindStats[];
  /** What a prune could take out. */
  readonly reclaimable: Reclaimable;
  readonly deduplication: Deduplication;
  readonly pairs: PairStats;
  /** The largest first. */
  readonly images: readonly ImageStats[];
  /** The largest blobs, the largest first. */
  readonly top: readonly BlobStats[];
  /** Blobs by when they were last used, the youngest first. */
  readonly ages: readonly AgeBand[];
  /** Blobs that no image needs, the cache index not counted. */
  readonly unreferenced: { readonly blobs: number; readonly size: number };
}

export interface KindStats {
  readonly kind: BlobKind;
  readonly entries: number;
  readonly blobs: number;
  readonly size: number;
  /** Of `size`: what can be made again from what is here, and what nothing leads to. */
  readonly reclaimable: number;
}

export interface Deduplication {
  /** What the images would take if each had its own copy of all it needs. */
  readonly logical: number;
  /** What they take. */
  readonly unique: number;
  /** `logical / unique`; 1 when there is nothing. */
  readonly ratio: number;
}

/** Layers by what is known of digest and diffID. */
export interface PairStats {
  readonly proven: number;
  readonly claimed: number;
  /** Known by one name only. */
  readonly unpaired: number;
}

export interface ImageStats {
  readonly digest: Digest;
  readonly names: readonly string[];
  readonly pinned: boolean;
  readonly layers: number;
  readonly size: number;
  /** Of `size`: what other images need as well. */
  readonly shared: number;
  /** Of `size`: what would go with this image alone. */
  readonly unique: number;
  /** When something that only this image has was last used; where it shares everything, when any of it was. */
  readonly usedAt: Date | undefined;
}

export interface BlobStats {
  readonly digest: Digest;
  readonly kind: BlobKind;
  readonly mediaType: string;
  readonly size: number;
  readonly usedAt: Date | undefined;
  /** How many images need it. */
  readonly images: number;
}

export interface AgeBand {
  /** The longest time since the last use, in ms; undefined: any. */
  readonly until: number | undefined;
  readonly blobs: number;
  readonly size: number;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const AGES = [HOUR, DAY, 7 * DAY, 30 * DAY, 90 * DAY, undefined];

/** The cache that is looked at. */
export interface StatsSubject {
  readonly layout: OciLayout;
  readonly reclaimable: () => Promise<Reclaimable>;
}

export async function cacheStats(subject: StatsSubject, options: StatsOptions = {}): Promise<CacheStats> {
  return statsOf(subject, await takeCensus(subject.layout, options.signal), options);
}

export async function statsOf(
  { layout, reclaimable }: StatsSubject,
  census: Census,
  { top = 10 }: StatsOptions = {},
): Promise<CacheStats> {
  const free = await reclaimable();
  const at = new Date();
  const blobs = [...census.blobs.values()];
  const here = blobs.filter(({ size }) => size !== undefined);
  return {
    at,
    dir: layout.dir,
    entries: sum(blobs, (blob) => blob.entries),
    blobs: here.length,
    absent: blobs.length - here.length,
    disk: await diskUse(layout.dir),
    kinds: BLOB_KINDS.map((kind) => kindStats(kind, blobs, free)),
    reclaimable: free,
    deduplication: deduplication(census.images, here),
    pairs: pairStats(layout),
    images: census.images.map(imageStats).sort((a, b) => b.size - a.size || compare(a, b)),
    top: here
      .sort((a, b) => bytes(b) - bytes(a) || compare(a, b))
      .slice(0, top)
      .map(({ images, digest, kind, mediaType, size = 0, usedAt }) => {
        return { digest, kind, mediaType, size, usedAt, images: images.size };
      }),
    ages: ageBands(here, at),
    unreferenced: total(here.filter(({ images, kind }) => images.size === 0 && kind !== 'cache index')),
  };
}

function kindStats(kind: BlobKind, blobs: readonly CountedBlob[], { byKind }: Reclaimable): KindStats {
  const own = blobs.filter((blob) => blob.kind === kind);
  const here = own.filter(({ size }) => size !== undefined);
  const free: Partial<Record<BlobKind, number>> = {
    tar: byKind.tar,
    'layer index': byKind['layer-index'],
    other: byKind.orphan,
  };
  return {
    kind,
    entries: sum(own, (blob) => blob.entries),
    ...total(here),
    reclaimable: free[kind] ?? 0,
  };
}

function deduplication(images: readonly CountedImage[], here: readonly CountedBlob[]): Deduplication {
  const logical = sum(images, ({ blobs }) => sum(blobs, bytes));
  const unique = sum(
    here.filter((blob) => blob.images.size > 0),
    bytes,
  );
  return { logical, unique, ratio: unique === 0 ? 1 : logical / unique };
}

function pairStats(layout: OciLayout): PairStats {
  const pairs = { proven: 0, claimed: 0, unpaired: 0 };
  for (const name of layerNames(layout)) {
    const record = layerRecord(layout, name);
    if (record === undefined) continue;
    if (record.diffID === undefined || record.digests.length === 0) pairs.unpaired++;
    else if (record.compressed.some(({ proven }) => proven)) pairs.proven++;
    else pairs.claimed++;
  }
  return pairs;
}

export function imageStats({ digest, names, pinned, layers, blobs }: CountedImage): ImageStats {
  const all = [...blobs];
  const own = all.filter(({ images }) => images.size === 1);
  const size = sum(all, bytes);
  const unique = sum(own, bytes);
  // Manifests are read by pushes and commits too.
  const isUse = ({ kind }: CountedBlob): boolean => kind !== 'manifest';
  const used = own.some(isUse) ? own.filter(isUse) : all;
  const times = used.flatMap(({ usedAt }) => usedAt ?? []);
  const usedAt = times.reduce<Date | undefined>(
    (latest, time) => (latest === undefined || time > latest ? time : latest),
    undefined,
  );
  return { digest, names, pinned, layers: layers.length, size, shared: size - unique, unique, usedAt };
}

function ageBands(here: readonly CountedBlob[], now: Date): AgeBand[] {
  let from = -Infinity;
  return AGES.map((until) => {
    const band = here.filter(({ usedAt }) => {
      const age = now.getTime() - (usedAt?.getTime() ?? 0);
      return age >= from && (until === undefined || age < until);
    });
    from = until ?? Infinity;
    return { until, ...total(band) };
  });
}

function total(blobs: readonly CountedBlob[]): { blobs: number; size: number } {
  return { blobs: blobs.length, size: sum(blobs, bytes) };
}

function bytes({ size = 0 }: CountedBlob): number {
  return size;
}

function sum<T>(items: Iterable<T>, value: (item: T) => number): number {
  let result = 0;
  for (const item of items) result += value(item);
  return result;
}

function compare(a: { readonly digest: Digest }, b: { readonly digest: Digest }): number {
  return a.digest < b.digest ? -1 : 1;
}
