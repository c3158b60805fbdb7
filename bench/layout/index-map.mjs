/** The index map and the journal against their bounds. `node --expose-gc bench/layout/index-map.mjs [LAYERS]` */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { OciLayout } from '@layercache/layout';
import { layerPair, median, sha256 } from './descriptors.mjs';

const [mode, dirArgument, countArgument] = process.argv.slice(2);
const measures = {
  open: measureOpen,
  parse: measureParse,
  lookups: measureLookups,
  puts: measurePuts,
  memory: measureMemory,
  bytes: measureBytes,
};
if (mode in measures) {
  console.log(JSON.stringify(await measures[mode](dirArgument, Number(countArgument))));
} else {
  await main(Number(mode ?? 100_000));
}

/** Each measurement is a process of its own, so that none warms up another. */
function measure(name, dir, count) {
  const args = ['--expose-gc', import.meta.filename, name, dir, String(count)];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

function repeat(times, run) {
  return median(Array.from({ length: times }, run));
}

/** The medians of what is measured for each of some sizes, in turn, so that a busy moment touches all alike. */
function inTurn(times, sizes, run) {
  const rounds = Array.from({ length: times }, () => sizes.map(run));
  return sizes.map((_, at) => median(rounds.map((round) => round[at])));
}

async function main(large) {
  const [small, medium] = [100, 1000];
  const root = mkdtempSync(join(tmpdir(), 'layercache-bench-'));
  const dir = (count) => join(root, String(count));
  try {
    for (const count of [1, small, medium, large]) await fill(dir(count), count);
    const rows = [];
    const add = (what, value, bound) => rows.push(`| ${what} | ${value} | ${bound} |`);
    const times = 9;
    const [openLarge, openSmall] = inTurn(times, [large, small], (n) => measure('open', dir(n), n));
    const parse = repeat(3, () => measure('parse', dir(large), large));
    add(`open + first lookup, ${large} layers`, `${openLarge.toFixed(2)} ms`, '');
    add(`open + first lookup, ${small} layers`, `${openSmall.toFixed(2)} ms`, '');
    add('ratio', (openLarge / openSmall).toFixed(2), 'at most 1.5');
    add('parse index.json and fill a Map', `${parse.toFixed(0)} ms`, '');
    add('ratio', `${(parse / openLarge).toFixed(0)} ×`, 'at least 50 ×');
    const lookups = Array.from({ length: 3 }, () => measure('lookups', dir(large), large));
    for (const kind of ['digest', 'diffID', 'miss']) {
      const rate = median(lookups.map((one) => one[kind]));
      add(`lookups by ${kind}`, `${Math.round(rate / 1000)},000 /s`, 'at least 500,000 /s');
    }
    const [putLarge, putMedium] = inTurn(times, [large, medium], (n) => measure('puts', dir(n), n));
    add(`put, ${large} layers`, `${putLarge.toFixed(1)} µs`, '');
    add(`put, ${medium} layers`, `${putMedium.toFixed(1)} µs`, '');
    add('ratio', (putLarge / putMedium).toFixed(2), 'at most 1.5');
    const bytes = measure('bytes', join(root, 'bytes'), 10_000);
    add('bytes written beside the blobs for 10,000 puts', `${(bytes / 1e6).toFixed(1)} MB`, 'at most 100 MB');
    const [memoryLarge, memoryEmpty] = [large, 1].map((n) =>
      repeat(3, () => measure('memory', dir(n), large)),
    );
    const growth = (memoryLarge - memoryEmpty) / 2 ** 20;
    add(
      `resident growth, every entry looked up, ${large} layers against 1`,
      `${growth.toFixed(0)} MiB`,
      'at most 64 MiB',
    );
    add('map', `${(statSync(join(dir(large), '.layercache/map')).size / 1e6).toFixed(1)} MB`, '');
    console.log(`${cpus().length} × ${cpus()[0].model.trim()}, Node ${process.version}\n`);
    console.log(['| what | measured | bound |', '| --- | --- | --- |', ...rows].join('\n'));
  } finally {
    rmSync(root, { recursive: true });
  }
}

async function fill(dir, count) {
  const layout = await OciLayout.open(dir);
  for (let n = 0; n < count; n += 1000) {
    const pairs = Array.from({ length: Math.min(1000, count - n) }, (_, i) => layerPair(n + i));
    await layout.put(pairs.flatMap((pair) => pair.descriptors));
  }
  await layout.close();
}

/** Milliseconds; the module is loaded and warm, the handle is new, as it is in a program that opens one cache. */
async function measureOpen(dir, count) {
  const keys = [layerPair(0).digest, layerPair(Math.floor(count / 2)).diffID];
  const times = [];
  for (let round = 0; round < 31; round++) {
    const start = performance.now();
    const layout = await OciLayout.open(dir);
    const found = layout.lookup(keys[round % 2]).length;
    times.push(performance.now() - start);
    await layout.close();
    if (found !== 2) throw new Error('not found');
  }
  return median(times);
}

function measureParse(dir) {
  const start = performance.now();
  const { manifests } = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8'));
  const map = new Map();
  for (const descriptor of manifests) map.set(descriptor.digest, descriptor);
  return performance.now() - start;
}

/** Per second, each key once, after one round to warm up. */
async function measureLookups(dir, count) {
  const layout = await OciLayout.open(dir);
  const pairs = Array.from({ length: count }, (_, n) => layerPair(n));
  const keys = {
    digest: pairs.map((pair) => pair.digest),
    diffID: pairs.map((pair) => pair.diffID),
    miss: pairs.map((_, n) => sha256(`absent ${n}`)),
  };
  const rates = {};
  for (const round of ['warm', 'measured', 'measured']) {
    for (const [kind, list] of Object.entries(keys)) {
      const start = performance.now();
      let found = 0;
      for (const key of list) found += layout.lookup(key).length;
      const rate = (list.length / (performance.now() - start)) * 1000;
      if (found !== (kind === 'miss' ? 0 : 2 * count)) throw new Error('not found');
      if (round === 'measured') rates[kind] = Math.max(rates[kind] ?? 0, rate);
    }
  }
  await layout.close();
  return rates;
}

/** Microseconds, once warm: the least of some rounds. */
async function measurePuts(dir) {
  const layout = await OciLayout.open(dir);
  const times = [];
  for (let round = 0; round < 10; round++) {
    const descriptors = Array.from(
      { length: 300 },
      (_, n) => layerPair(`${process.pid} ${round} ${n}`).descriptors[0],
    );
    const start = performance.now();
    for (const descriptor of descriptors) await layout.put(descriptor);
    times.push(((performance.now() - start) / descriptors.length) * 1000);
  }
  // Removed again, so that the next run finds the same layout.
  rmSync(join(dir, '.layercache/journal'));
  await (await OciLayout.open(dir)).close();
  return Math.min(...times);
}

async function measureMemory(dir, count) {
  const layout = await OciLayout.open(dir);
  for (let n = 0; n < count; n++) layout.lookup(layerPair(n).digest);
  globalThis.gc();
  const { rss } = process.memoryUsage();
  await layout.close();
  return rss;
}

/** Bytes that this process gave to the kernel to write. */
async function measureBytes(dir, count) {
  const written = () => Number(/wchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))[1]);
  const before = written();
  const layout = await OciLayout.open(dir);
  for (let n = 0; n < count; n++) await layout.put(layerPair(n).descriptors);
  await layout.close();
  return written() - before;
}
