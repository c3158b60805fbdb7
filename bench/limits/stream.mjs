/**
 * What a limit holds, and what it costs: `node bench/limits/stream.mjs [SCALE]`. First a cache of 1 GiB under a stream
 * of 5 GiB of layers; then a Zipf trace, by the default strategy, by lru, and by a simulated LRU of compressed layers
 * alone, with everything an eighth as large. All sizes are divided by SCALE (default 1).
 *
 * This process is the sampler: it stops the one that works, adds up every file below the cache, and lets it go on.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SCALE = Number(process.argv[2] ?? 1);
const MiB = 1024 * 1024;
const LIMIT = 1024 * MiB;
const WORKER = fileURLToPath(new URL('worker.mjs', import.meta.url));

function walk(dir) {
  const sizes = new Map();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const facts = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (facts === undefined) return undefined;
    sizes.set(facts.ino, facts.size);
  }
  return sizes;
}

/** Once two walks agree, nothing moves: the other process has stopped. */
function diskUse(dir) {
  for (let before = walk(dir); ;) {
    const now = walk(dir);
    if (
      now !== undefined &&
      before?.size === now.size &&
      [...now].every(([ino, size]) => before.get(ino) === size)
    )
      return [...now.values()].reduce((sum, size) => sum + size, 0);
    before = now;
  }
}

async function run(scale, task) {
  const dir = mkdtempSync(join(tmpdir(), 'layercache-limits-'));
  const child = fork(WORKER, [
    JSON.stringify({ dir, maxSize: Math.floor(LIMIT / scale), images: imagesOf(scale), ...task }),
  ]);
  const messages = [];
  let wake = () => undefined;
  child.on('message', (message) => {
    messages.push(message);
    wake();
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const next = async () => {
    while (messages.length === 0 && child.exitCode === null) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  };
  try {
    const { population } = await next();
    child.send('go');
    let [samples, most, done] = [0, 0, false];
    void ended.then(() => (done = true));
    while (!done) {
      child.kill('SIGSTOP');
      most = Math.max(most, diskUse(dir));
      samples++;
      child.kill('SIGCONT');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const result = messages.shift();
    if (result === undefined) throw new Error('the worker failed');
    return { ...result, population, samples, most };
  } finally {
    child.kill('SIGKILL');
    await ended;
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Numbers below `n`, number k as often as 1 / (k + 1) ** skew says; the same each time. */
function zipf(n, skew, count) {
  const weights = Array.from({ length: n }, (_, k) => 1 / (k + 1) ** skew);
  const sum = weights.reduce((a, b) => a + b);
  let state = 12_345;
  return Array.from({ length: count }, () => {
    state = (state * 48_271) % 2_147_483_647;
    let left = (state / 2_147_483_647) * sum;
    const k = weights.findIndex((weight) => (left -= weight) <= 0);
    // Popularity has nothing to do with size or base.
    return (Math.max(0, k) * 37) % n;
  });
}

const show = (bytes) => `${(bytes / MiB).toFixed(0)} MiB`;
const percent = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;
function imagesOf(scale) {
  return {
    images: 120,
    bases: 8,
    own: Math.floor((21 * MiB) / scale),
    baseSize: Math.floor((16 * MiB) / scale),
  };
}

const stream = await run(SCALE, {
  strategy: 'cost-aware',
  trace: Array.from({ length: 120 }, (_, n) => n),
  pinned: [0, 1],
  tarEvery: 4,
});
const limit = Math.floor(LIMIT / SCALE);
console.log(`limit ${limit} bytes; layers of ${show(stream.population)}, ${show(stream.network)} came`);
console.log(
  `most at any of ${stream.samples} instants: ${stream.most} (${percent(stream.most, limit)}); ${stream.seconds.toFixed(0)} s; pinned images kept: ${stream.pinnedKept}`,
);
if (stream.most > limit || !stream.pinnedKept) process.exitCode = 1;

const trace = zipf(120, 0.9, 240);
const zipfLimit = Math.floor(LIMIT / (SCALE * 8));
console.log('| strategy | hits by bytes | from the network | most | time |');
let simulated;
for (const strategy of ['cost-aware', 'lru']) {
  const result = await run(SCALE * 8, { strategy, trace, tarEvery: 2 });
  const { bytes, hitBytes, network, most, seconds } = result;
  simulated = { ...result.simulated, bytes };
  console.log(
    `| ${strategy} | ${percent(hitBytes, bytes)} | ${show(network)} | ${percent(most, zipfLimit)} | ${seconds.toFixed(0)} s |`,
  );
  if (most > zipfLimit) process.exitCode = 1;
}
console.log(
  `| lru, simulated | ${percent(simulated.hitBytes, simulated.bytes)} | ${show(simulated.network)} | | |`,
);
