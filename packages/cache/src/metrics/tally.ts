import { LatencyHistogram, type Latency } from './latency-histogram.js';

/** What is counted. Each is there in every snapshot, also when it is 0. */
export const COUNTERS = [
  /** Lookups of a layer or blob, by whoever wants its bytes, that found it here, and that did not. */
  'hits',
  'misses',
  /** Tags whose digest was known, and that a registry was asked for. */
  'tagHits',
  'tagMisses',
  /** Blobs that had to go to make room, and their bytes. */
  'evictions',
  'bytesEvicted',
  /** Operations that failed. */
  'errors',
  /** Bytes of blobs that were written to the disk. */
  'bytesStored',
  /** Bytes of blobs and manifests that were handed out. */
  'bytesServed',
  /** Bytes of blobs and manifests that came from registries. */
  'bytesDownloaded',
  /** Bytes of blobs and manifests that were sent to registries. */
  'bytesUploaded',
  /** Bytes that did not have to come from a registry, because they were here. */
  'bytesSaved',
] as const;
export type Counter = (typeof COUNTERS)[number];

/** What is timed. `registry…` are requests to a registry, from the start to the end of the answer's headers. */
export const OPERATIONS = [
  'add',
  'pull',
  'push',
  'export',
  'verify',
  'find',
  'read',
  'registryResolve',
  'registryManifest',
  'registryBlob',
  'registryPush',
] as const;
export type Operation = (typeof OPERATIONS)[number];

/** The largest there was: operations at one time, bytes of one blob. */
export const PEAKS = ['operations', 'blobSize'] as const;
export type Peak = (typeof PEAKS)[number];

export interface OperationMetrics {
  readonly count: number;
  readonly errors: number;
  readonly latency: Latency;
}

export interface MetricsSnapshot {
  /** When counting began. */
  readonly since: Date;
  readonly counters: Readonly<Record<Counter, number>>;
  /** Of 1; undefined before the first lookup. */
  readonly hitRate: number | undefined;
  /** When each counter was last counted up; those that never were are not there. */
  readonly last: Readonly<Partial<Record<Counter, Date>>>;
  readonly peaks: Readonly<Record<Peak, number>>;
  readonly operations: Readonly<Record<Operation, OperationMetrics>>;
}

interface OperationTally {
  errors: number;
  readonly histogram: LatencyHistogram;
}

/** Counts since some time. Fixed in size. */
export class Tally {
  /** Milliseconds since 1970, as all times here. */
  since: number;
  readonly counters = new Map<Counter, number>();
  readonly last = new Map<Counter, number>();
  readonly peaks = new Map<Peak, number>();
  readonly operations = new Map<Operation, OperationTally>();

  constructor(since: number) {
    this.since = since;
  }

  get isEmpty(): boolean {
    return this.counters.size === 0 && this.operations.size === 0;
  }

  count(counter: Counter, amount: number, now: number): void {
    this.counters.set(counter, (this.counters.get(counter) ?? 0) + amount);
    this.last.set(counter, Math.max(this.last.get(counter) ?? 0, now));
  }

  peak(peak: Peak, value: number): void {
    if (value > (this.peaks.get(peak) ?? 0)) this.peaks.set(peak, value);
  }

  operation(operation: Operation): OperationTally {
    const known = this.operations.get(operation);
    if (known !== undefined) return known;
    const fresh = { errors: 0, histogram: new LatencyHistogram() };
    this.operations.set(operation, fresh);
    return fresh;
  }

  /** Both together. */
  add(other: Tally): void {
    this.since = Math.min(this.since, other.since);
    for (const [counter, amount] of other.counters) this.count(counter, amount, other.last.get(counter) ?? 0);
    for (const [peak, value] of other.peaks) this.peak(peak, value);
    for (const [name, { errors, histogram }] of other.operations) {
      const operation = this.operation(name);
      operation.errors += errors;
      operation.histogram.add(histogram);
    }
  }

  snapshot(): MetricsSnapshot {
    const [hits, misses] = [this.counters.get('hits') ?? 0, this.counters.get('misses') ?? 0];
    return {
      since: new Date(this.since),
      counters: record(COUNTERS, (counter) => this.counters.get(counter) ?? 0),
      hitRate: hits + misses === 0 ? undefined : hits / (hits + misses),
      last: Object.fromEntries(Array.from(this.last, ([counter, time]) => [counter, new Date(time)])),
      peaks: record(PEAKS, (peak) => this.peaks.get(peak) ?? 0),
      operations: record(OPERATIONS, (name) => {
        const { errors, histogram } = this.operations.get(name) ?? {
          errors: 0,
          histogram: new LatencyHistogram(),
        };
        const count = histogram.counts.reduce((total, each) => total + each, 0);
        return { count, errors, latency: histogram.latency };
      }),
    };
  }
}

function record<K extends string, V>(keys: readonly K[], valueOf: (key: K) => V): Record<K, V> {
  return Object.fromEntries(keys.map((key) => [key, valueOf(key)])) as Record<K, V>;
}
