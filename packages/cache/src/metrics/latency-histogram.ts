/** Four buckets for each doubling, so that a quantile is at most 19 % too high. */
const PER_DOUBLING = 4;
/** From 1 µs to more than an hour. */
export const BUCKETS = 128;

/** Milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
  readonly mean: number;
}

/** How long something took, how often: a fixed number of counters, whatever is recorded. */
export class LatencyHistogram {
  readonly counts: number[] = new Array<number>(BUCKETS).fill(0);
  /** Milliseconds. */
  sum = 0;
  /** Milliseconds. */
  max = 0;

  record(milliseconds: number): void {
    const bucket = bucketOf(milliseconds);
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sum += milliseconds;
    if (milliseconds > this.max) this.max = milliseconds;
  }

  add(other: Pick<LatencyHistogram, 'counts' | 'sum' | 'max'>): void {
    for (const [bucket, count] of other.counts.entries()) {
      this.counts[bucket] = (this.counts[bucket] ?? 0) + count;
    }
    this.sum += other.sum;
    this.max = Math.max(this.max, other.max);
  }

  /** The upper end of the bucket that the quantile falls into, or the maximum where that is less. */
  get latency(): Latency {
    const count = this.counts.reduce((total, each) => total + each, 0);
    const at = (quantile: number): number => {
      let seen = 0;
      for (const [bucket, each] of this.counts.entries()) {
        seen += each;
        if (each > 0 && seen >= quantile * count) return Math.min(upperEnd(bucket), this.max);
      }
      return 0;
    };
    const mean = count === 0 ? 0 : this.sum / count;
    return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: this.max, mean };
  }
}

function bucketOf(milliseconds: number): number {
  const bucket = Math.ceil(Math.log2(milliseconds * 1000) * PER_DOUBLING);
  return Math.min(Math.max(bucket, 0), BUCKETS - 1) || 0;
}

function upperEnd(bucket: number): number {
  return 2 ** (bucket / PER_DOUBLING) / 1000;
}
