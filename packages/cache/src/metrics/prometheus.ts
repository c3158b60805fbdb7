import { Counter as PrometheusCounter, Gauge, type Registry } from 'prom-client';
import type { Metrics } from './metrics.js';
import { COUNTERS, OPERATIONS, PEAKS, type MetricsSnapshot } from './tally.js';

/** `bytesServed` as `layercache_bytes_served_total`. */
function promName(counter: string): string {
  return `layercache_${counter.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
}

/** Help texts. */
const HELP: Readonly<Record<(typeof COUNTERS)[number], string>> = {
  hits: 'Lookups of bytes that were in the cache',
  misses: 'Lookups of bytes that were not in the cache',
  tagHits: 'Tags whose digest was known',
  tagMisses: 'Tags that a registry was asked for',
  evictions: 'Blobs that went to make room',
  bytesEvicted: 'Bytes of blobs that went to make room',
  errors: 'Operations that failed',
  bytesStored: 'Bytes of blobs written to the disk',
  bytesServed: 'Bytes of blobs and manifests handed out',
  bytesDownloaded: 'Bytes of blobs and manifests from registries',
  bytesUploaded: 'Bytes of blobs and manifests to registries',
  bytesSaved: 'Bytes that did not have to come from a registry',
};

/**
 * Puts the metrics of a cache, as of its handle, into a registry of prom-client. They are read when the registry is.
 *
 * @throws Error of prom-client when the registry has metrics of a cache already
 */
export function toPrometheus(metrics: Metrics, registry: Registry): void {
  const registers = [registry];
  for (const counter of COUNTERS) {
    new PrometheusCounter({
      name: `${promName(counter)}_total`,
      help: HELP[counter],
      registers,
      collect() {
        this.reset();
        this.inc(metrics.snapshot().counters[counter]);
      },
    });
  }
  for (const peak of PEAKS) {
    new Gauge({
      name: `${promName(peak)}_peak`,
      help: peak === 'blobSize' ? 'Bytes of the largest blob stored' : 'The most operations at one time',
      registers,
      collect() {
        this.set(metrics.snapshot().peaks[peak]);
      },
    });
  }
  const perOperation = (
    name: string,
    help: string,
    set: (operation: MetricsSnapshot['operations'][(typeof OPERATIONS)[number]]) => number,
  ): void => {
    new PrometheusCounter({
      name,
      help,
      labelNames: ['operation'],
      registers,
      collect() {
        this.reset();
        const { operations } = metrics.snapshot();
        for (const operation of OPERATIONS) this.inc({ operation }, set(operations[operation]));
      },
    });
  };
  perOperation('layercache_operations_total', 'Operations', ({ count }) => count);
  perOperation('layercache_operation_errors_total', 'Operations that failed', ({ errors }) => errors);
  new Gauge({
    name: 'layercache_operation_duration_seconds',
    help: 'How long operations take',
    labelNames: ['operation', 'quantile'],
    registers,
    collect() {
      const { operations } = metrics.snapshot();
      for (const operation of OPERATIONS) {
        const { p50, p95, p99 } = operations[operation].latency;
        for (const [quantile, value] of [
          ['0.5', p50],
          ['0.95', p95],
          ['0.99', p99],
        ] as const) {
          this.set({ operation, quantile }, value / 1000);
        }
      }
    },
  });
}
