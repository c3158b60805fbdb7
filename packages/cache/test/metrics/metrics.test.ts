import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { silentLogger } from '@layercache/oci';
import { COUNTERS, OPERATIONS } from '../../src/index.js';
import { LatencyHistogram } from '../../src/metrics/latency-histogram.js';
import { Metrics } from '../../src/metrics/metrics.js';
import { Tally } from '../../src/metrics/tally.js';
import { decodeTally, encodeTally } from '../../src/metrics/tally-document.js';
import { Scratch } from '../test-cache.js';

describe('metrics', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('start at zero, and know no hit rate before the first lookup', async () => {
    const metrics = new Metrics(await scratch.dir(), silentLogger);
    const { counters, hitRate, last, peaks, operations } = metrics.snapshot();
    expect(counters).to.deep.equal(Object.fromEntries(COUNTERS.map((counter) => [counter, 0])));
    expect(hitRate).to.equal(undefined);
    expect(last).to.deep.equal({});
    expect(peaks).to.deep.equal({ operations: 0, blobSize: 0 });
    expect(Object.keys(operations)).to.deep.equal([...OPERATIONS]);
    expect(operations.add.latency).to.deep.equal({ p50: 0, p95: 0, p99: 0, max: 0, mean: 0 });
  });

  it('count, and say when they last did', async () => {
    const metrics = new Metrics(await scratch.dir(), silentLogger);
    const before = Date.now();
    for (let count = 0; count < 3; count++) metrics.count('hits');
    metrics.count('misses');
    metrics.count('evictions', 2);
    metrics.count('bytesEvicted', 1234);
    metrics.count('bytesSaved', 0);
    metrics.stored(500);
    metrics.stored(100);
    const { counters, hitRate, last, peaks } = metrics.snapshot();
    expect(hitRate).to.equal(0.75);
    expect([counters.evictions, counters.bytesEvicted, counters.bytesStored]).to.deep.equal([2, 1234, 600]);
    expect(peaks.blobSize).to.equal(500);
    expect(Object.keys(last).sort()).to.deep.equal([
      'bytesEvicted',
      'bytesStored',
      'evictions',
      'hits',
      'misses',
    ]);
    expect(last.hits?.getTime()).to.be.within(before, Date.now());
  });

  it('time operations, those that fail as well, and know how many there were at a time', async () => {
    const metrics = new Metrics(await scratch.dir(), silentLogger);
    let release: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const three = [1, 2, 3].map((number) =>
      metrics.time('add', async () => {
        await gate;
        return number;
      }),
    );
    release?.();
    expect(await Promise.all(three)).to.deep.equal([1, 2, 3]);
    const broken = await metrics
      .time('pull', () => Promise.reject(new Error('broken')))
      .catch((error: unknown) => error);
    expect(broken).to.have.property('message', 'broken');
    const { operations, counters, peaks } = metrics.snapshot();
    expect([operations.add.count, operations.add.errors]).to.deep.equal([3, 0]);
    expect([operations.pull.count, operations.pull.errors, counters.errors]).to.deep.equal([1, 1, 1]);
    expect(peaks.operations).to.equal(3);
  });

  it('of all runs are united when a handle is closed, whichever is first', async () => {
    const dir = await scratch.dir();
    const [one, two] = [new Metrics(dir, silentLogger), new Metrics(dir, silentLogger)];
    one.count('hits', 3);
    one.stored(10);
    two.count('hits', 4);
    two.count('misses', 1);
    await two.time('add', () => Promise.resolve());
    expect(one.total().counters.hits).to.equal(3);
    await two.close();
    expect(one.total().counters.hits).to.equal(7);
    await one.close();
    expect(one.total().counters.hits).to.equal(7);
    const { counters, hitRate, operations, peaks } = new Metrics(dir, silentLogger).total();
    expect([counters.hits, counters.misses, counters.bytesStored, hitRate]).to.deep.equal([7, 1, 10, 7 / 8]);
    expect([operations.add.count, peaks.blobSize]).to.deep.equal([1, 10]);
    expect(new Metrics(dir, silentLogger).snapshot().counters.hits).to.equal(0);
  });

  it('lose nothing when many handles are closed at once, and stay small', async () => {
    const dir = await scratch.dir();
    const handles = Array.from({ length: 20 }, () => new Metrics(dir, silentLogger));
    for (const [position, handle] of handles.entries()) {
      for (const counter of COUNTERS) handle.count(counter, position);
      for (const operation of OPERATIONS) await handle.time(operation, () => Promise.resolve());
    }
    await Promise.all(handles.map((handle) => handle.close()));
    const total = new Metrics(dir, silentLogger).total();
    expect(total.counters.hits).to.equal((19 * 20) / 2);
    expect(total.operations.verify.count).to.equal(20);
    expect(statSync(join(dir, '.layercache', 'metrics', 'totals')).size).to.be.lessThan(8000);
  });

  it('count from zero after a reset, in the totals as well', async () => {
    const dir = await scratch.dir();
    const metrics = new Metrics(dir, silentLogger);
    metrics.count('hits', 3);
    await metrics.close();
    metrics.count('hits', 2);
    await metrics.reset();
    expect([metrics.snapshot().counters.hits, metrics.total().counters.hits]).to.deep.equal([0, 0]);
    metrics.count('hits');
    await metrics.close();
    expect(new Metrics(dir, silentLogger).total().counters.hits).to.equal(1);
  });

  it('start anew when what was kept is gone, or is not theirs', async () => {
    const dir = await scratch.dir();
    const metrics = new Metrics(dir, silentLogger);
    metrics.count('hits', 3);
    await metrics.close();
    const file = join(dir, '.layercache', 'metrics', 'totals');
    const good = JSON.parse(readFileSync(file, 'utf8')) as object;
    for (const content of [
      '',
      'null',
      '{"version":1}',
      JSON.stringify({ ...good, version: 2 }),
      JSON.stringify({ ...good, counters: { hits: -1 } }),
      JSON.stringify({ ...good, counters: { hits: 'many' } }),
      JSON.stringify({ ...good, since: 1e300 }),
      JSON.stringify({
        ...good,
        operations: { add: { errors: 0, sum: 1, max: 1, buckets: [[4_000_000_000, 1]] } },
      }),
      'x'.repeat(300_000),
    ]) {
      writeFileSync(file, content);
      const next = new Metrics(dir, silentLogger);
      expect(next.total().counters.hits, content.slice(0, 80)).to.equal(0);
      next.count('hits');
      await next.close();
      expect(next.total().counters.hits).to.equal(1);
    }
    rmSync(join(dir, '.layercache'), { recursive: true });
    expect(new Metrics(dir, silentLogger).total().counters.hits).to.equal(0);
  });

  it('of a cache that cannot be written to are only those of the handle', async () => {
    const dir = await scratch.dir();
    writeFileSync(join(dir, '.layercache'), 'no folder');
    const metrics = new Metrics(dir, silentLogger);
    metrics.count('hits');
    await metrics.close();
    expect(metrics.snapshot().counters.hits).to.equal(1);
  });

  it('give quantiles that are at most a fifth too high, and never more than the maximum', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.001, max: 100_000, noNaN: true }), { minLength: 1, maxLength: 200 }),
        (times) => {
          const histogram = new LatencyHistogram();
          for (const time of times) histogram.record(time);
          const sorted = times.toSorted((a, b) => a - b);
          const { latency } = histogram;
          for (const [quantile, found] of [
            [0.5, latency.p50],
            [0.95, latency.p95],
            [0.99, latency.p99],
          ] as const) {
            const exact = sorted[Math.ceil(quantile * sorted.length) - 1]!;
            expect(found).to.be.within(exact * 0.999_999, exact * 1.2);
          }
          expect(latency.max).to.equal(sorted.at(-1));
        },
      ),
    );
    const odd = new LatencyHistogram();
    for (const time of [0, 1e-9, 1e12]) odd.record(time);
    expect(odd.latency.max).to.equal(1e12);
    expect(odd.latency.p50).to.be.at.most(0.001);
  });

  it('are the same when they are read as when they were written', () => {
    const names = fc.constantFrom(...COUNTERS);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(names, fc.nat(), fc.nat())),
        fc.array(fc.tuple(fc.constantFrom(...OPERATIONS), fc.double({ min: 0, max: 1e6, noNaN: true }))),
        (counts, times) => {
          const tally = new Tally(1000);
          for (const [name, amount, at] of counts) tally.count(name, amount, at);
          for (const [name, time] of times) tally.operation(name).histogram.record(time);
          expect(decodeTally(encodeTally(tally))?.snapshot()).to.deep.equal(tally.snapshot());
        },
      ),
    );
  });
});
