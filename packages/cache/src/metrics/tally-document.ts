import { LayercacheError, parseDocument } from '@layercache/oci';
import { z } from 'zod';
import { BUCKETS } from './latency-histogram.js';
import { COUNTERS, OPERATIONS, PEAKS, Tally } from './tally.js';

const amount = z.number().nonnegative();
const time = z.int().nonnegative().max(8.64e15);

const tallySchema = z.object({
  version: z.literal(1),
  since: time,
  counters: z.partialRecord(z.enum(COUNTERS), amount),
  last: z.partialRecord(z.enum(COUNTERS), time),
  peaks: z.partialRecord(z.enum(PEAKS), amount),
  operations: z.partialRecord(
    z.enum(OPERATIONS),
    z.object({
      errors: amount,
      sum: amount,
      max: amount,
      /** Bucket and count, where there is any. */
      buckets: z.array(z.tuple([z.int().min(0).lt(BUCKETS), amount])).max(BUCKETS),
    }),
  ),
});

export function encodeTally(tally: Tally): Uint8Array {
  const operations = Array.from(tally.operations, ([name, { errors, histogram }]) => {
    const buckets = [...histogram.counts.entries()].filter(([, count]) => count > 0);
    return [name, { errors, sum: histogram.sum, max: histogram.max, buckets }] as const;
  });
  return Buffer.from(
    JSON.stringify({
      version: 1,
      since: tally.since,
      counters: Object.fromEntries(tally.counters),
      last: Object.fromEntries(tally.last),
      peaks: Object.fromEntries(tally.peaks),
      operations: Object.fromEntries(operations),
    }),
  );
}

/** Undefined for what is no tally, or one of a version that counts something else: then counting starts anew. */
export function decodeTally(bytes: Uint8Array): Tally | undefined {
  try {
    const document = parseDocument(tallySchema, bytes, 'the metrics of the cache');
    const tally = new Tally(document.since);
    for (const counter of COUNTERS) {
      const count = document.counters[counter];
      if (count !== undefined) tally.count(counter, count, document.last[counter] ?? 0);
    }
    for (const peak of PEAKS) tally.peak(peak, document.peaks[peak] ?? 0);
    for (const name of OPERATIONS) {
      const stored = document.operations[name];
      if (stored === undefined) continue;
      const operation = tally.operation(name);
      operation.errors = stored.errors;
      for (const [bucket, count] of stored.buckets) operation.histogram.counts[bucket] = count;
      operation.histogram.sum = stored.sum;
      operation.histogram.max = stored.max;
    }
    return tally;
  } catch (error) {
    if (error instanceof LayercacheError) return undefined;
    throw error;
  }
}
