import { expect } from 'chai';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { Registry } from 'prom-client';
import { silentLogger } from '@layercache/oci';
import { Metrics } from '../../src/metrics/metrics.js';
import { toOpenTelemetry } from '../../src/metrics/opentelemetry.js';
import { toPrometheus } from '../../src/metrics/prometheus.js';
import { Scratch } from '../test-cache.js';

describe('metrics elsewhere', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  async function counted(): Promise<Metrics> {
    const metrics = new Metrics(await scratch.dir(), silentLogger);
    metrics.count('hits', 3);
    metrics.stored(4096);
    await metrics.time('add', () => Promise.resolve());
    await metrics.time('add', () => Promise.reject(new Error('broken'))).catch(() => undefined);
    return metrics;
  }

  it('are Prometheus text, as they are when it is read', async () => {
    const metrics = await counted();
    const registry = new Registry();
    toPrometheus(metrics, registry);
    const lines = async (): Promise<string[]> =>
      (await registry.metrics()).split('\n').filter((line) => line.startsWith('layercache_'));
    const first = await lines();
    expect(first).to.include.members([
      'layercache_hits_total 3',
      'layercache_misses_total 0',
      'layercache_bytes_stored_total 4096',
      'layercache_blob_size_peak 4096',
      'layercache_operations_total{operation="add"} 2',
      'layercache_operation_errors_total{operation="add"} 1',
      'layercache_operations_total{operation="pull"} 0',
    ]);
    const quantiles = first.filter((line) =>
      line.startsWith('layercache_operation_duration_seconds{operation="add"'),
    );
    expect(quantiles.map((line) => /quantile="([^"]+)"/.exec(line)?.[1])).to.deep.equal([
      '0.5',
      '0.95',
      '0.99',
    ]);
    const p50 = Number(quantiles[0]?.split(' ')[1]);
    expect(p50).to.equal(metrics.snapshot().operations.add.latency.p50 / 1000);
    metrics.count('hits');
    expect(await lines()).to.include('layercache_hits_total 4');
    expect(await lines()).to.include('layercache_operations_total{operation="add"} 2');
  });

  it('are read by OpenTelemetry', async () => {
    const metrics = await counted();
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
    const provider = new MeterProvider({ readers: [reader] });
    toOpenTelemetry(metrics, provider.getMeter('layercache'));
    try {
      const { resourceMetrics } = await reader.collect();
      const found = new Map(
        resourceMetrics.scopeMetrics
          .flatMap((scope) => scope.metrics)
          .map((metric) => [metric.descriptor.name, metric] as const),
      );
      const value = (name: string, operation?: string): unknown =>
        found.get(name)?.dataPoints.find((point) => point.attributes.operation === operation)?.value;
      expect(value('layercache.hits')).to.equal(3);
      expect(value('layercache.bytes_stored')).to.equal(4096);
      expect(found.get('layercache.bytes_stored')?.descriptor.unit).to.equal('By');
      expect(value('layercache.peak.blob_size')).to.equal(4096);
      expect(value('layercache.operations', 'add')).to.equal(2);
      expect(value('layercache.operation.errors', 'add')).to.equal(1);
      const durations = found.get('layercache.operation.duration')?.dataPoints ?? [];
      const p99 = durations.find(
        ({ attributes }) => attributes.operation === 'add' && attributes.quantile === 0.99,
      );
      expect(p99?.value).to.equal(metrics.snapshot().operations.add.latency.p99);
    } finally {
      await provider.shutdown();
    }
  });
});
