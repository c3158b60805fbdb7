import type { Meter } from '@opentelemetry/api';
import type { Metrics } from './metrics.js';
import { COUNTERS, OPERATIONS, PEAKS } from './tally.js';

/** `bytesServed` as `bytes_served`. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Puts the metrics of a cache, as of its handle, on a meter of OpenTelemetry. They are read when the meter is. */
export function toOpenTelemetry(metrics: Metrics, meter: Meter): void {
  for (const counter of COUNTERS) {
    const unit = counter.startsWith('bytes') ? 'By' : '1';
    meter.createObservableCounter(`layercache.${snake(counter)}`, { unit }).addCallback((result) => {
      result.observe(metrics.snapshot().counters[counter]);
    });
  }
  for (const peak of PEAKS) {
    const unit = peak === 'blobSize' ? 'By' : '1';
    meter.createObservableGauge(`layercache.peak.${snake(peak)}`, { unit }).addCallback((result) => {
      result.observe(metrics.snapshot().peaks[peak]);
    });
  }
  const perOperation = (name: string, of: 'count' | 'errors'): void => {
    meter.createObservableCounter(name).addCallback((result) => {
      const { operations } = metrics.snapshot();
      for (const operation of OPERATIONS) result.observe(operations[operation][of], { operation });
    });
  };
  perOperation('layercache.operations', 'count');
  perOperation('layercache.operation.errors', 'errors');
  meter.createObservableGauge('layercache.operation.duration', { unit: 'ms' }).addCallback((result) => {
    const { operations } = metrics.snapshot();
    for (const operation of OPERATIONS) {
      const { p50, p95, p99 } = operations[operation].latency;
      for (const [quantile, value] of [
        [0.5, p50],
        [0.95, p95],
        [0.99, p99],
      ] as const) {
        result.observe(value, { operation, quantile });
      }
    }
  });
}
