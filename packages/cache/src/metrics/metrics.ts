import { isLayercacheError, type Logger } from '@layercache/oci';
import { SideFolder, type OciLayout } from '@layercache/layout';
import { Tally, type Counter, type MetricsSnapshot, type Operation } from './tally.js';
import { decodeTally, encodeTally } from './tally-document.js';

/** The name of the file in `.layercache/metrics/`. */
const TOTALS = 'totals';
const FOLDER = { maxSize: 256 * 1024, lockTimeout: 2000 };

/** What the cache counts while it works. Costs well below a microsecond a count, and touches no disk. */
export interface MetricsRecorder {
  /** @param amount default 1 */
  count(counter: Counter, amount?: number): void;
  /** Runs an operation, and records how long it took and whether it failed. */
  time<T>(operation: Operation, work: () => Promise<T>): Promise<T>;
}

/**
 * What a cache did: in this handle since it was opened, and in all handles of all processes. The latter are united
 * when a handle is closed, so a crash costs the numbers of its run and nothing else.
 */
export class Metrics implements MetricsRecorder {
  #folder: SideFolder;
  readonly #logger: Logger;
  #own = new Tally(Date.now());
  /** What of it is not in the totals yet. */
  #unsaved = new Tally(Date.now());
  #underWay = 0;

  /** @param cacheDir the folder of the cache */
  constructor(cacheDir: string, logger: Logger) {
    this.#folder = new SideFolder(cacheDir, 'metrics', FOLDER);
    this.#logger = logger;
  }

  /** From now on the totals are written within the limits of the layout. */
  keepIn(layout: OciLayout): void {
    this.#folder.close();
    this.#folder = layout.sideFolder('metrics', FOLDER);
  }

  count(counter: Counter, amount = 1): void {
    if (amount === 0) return;
    const now = Date.now();
    this.#own.count(counter, amount, now);
    this.#unsaved.count(counter, amount, now);
  }

  /** A blob was written to the disk. */
  stored(size: number): void {
    this.count('bytesStored', size);
    this.#own.peak('blobSize', size);
    this.#unsaved.peak('blobSize', size);
  }

  async time<T>(operation: Operation, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    this.#underWay += 1;
    this.#own.peak('operations', this.#underWay);
    this.#unsaved.peak('operations', this.#underWay);
    let failed = false;
    try {
      return await work();
    } catch (error) {
      // To find nothing is an answer, and to be called off is no fault.
      failed = !isLayercacheError(error, 'NOT_FOUND', 'ABORTED');
      throw error;
    } finally {
      this.#underWay -= 1;
      this.#ended(operation, performance.now() - start, failed);
    }
  }

  /** Since this handle was opened, or reset. */
  snapshot(): MetricsSnapshot {
    return this.#own.snapshot();
  }

  /** Of all handles that were closed, and of this one. */
  total(): MetricsSnapshot {
    const total = this.#kept();
    total.add(this.#unsaved);
    return total.snapshot();
  }

  /**
   * Counts from zero, here and in the totals.
   *
   * @throws LayercacheError `STORAGE`, `LOCK_TIMEOUT`
   */
  async reset(): Promise<void> {
    const fresh = new Tally(Date.now());
    await this.#folder.update(TOTALS, () => encodeTally(fresh));
    this.#own = fresh;
    this.#unsaved = new Tally(fresh.since);
  }

  /** Adds what was counted to the totals. A cache that cannot be written to does without. */
  async close(): Promise<void> {
    const unsaved = this.#unsaved;
    this.#unsaved = new Tally(Date.now());
    try {
      if (unsaved.isEmpty) return;
      await this.#folder.update(TOTALS, (bytes) => {
        const total = (bytes === undefined ? undefined : decodeTally(bytes)) ?? new Tally(unsaved.since);
        total.add(unsaved);
        return encodeTally(total);
      });
    } catch (error) {
      if (!isLayercacheError(error, 'STORAGE', 'LOCK_TIMEOUT', 'CACHE_FULL')) throw error;
      this.#logger.debug({ message: 'metrics not kept', error: error.message });
    } finally {
      this.#folder.close();
    }
  }

  #kept(): Tally {
    const bytes = this.#folder.read(TOTALS);
    return (bytes === undefined ? undefined : decodeTally(bytes)) ?? new Tally(this.#unsaved.since);
  }

  #ended(operation: Operation, milliseconds: number, failed: boolean): void {
    for (const tally of [this.#own, this.#unsaved]) {
      const ended = tally.operation(operation);
      ended.histogram.record(milliseconds);
      if (failed) ended.errors += 1;
    }
    if (failed) this.count('errors');
  }
}
