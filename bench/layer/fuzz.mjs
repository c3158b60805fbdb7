/**
 * Changed bytes for every decoder of packages/layer: each is decoded, or refused with a code.
 * `node bench/layer/fuzz.mjs [COUNT [SEED]]`, by default 100,000 for each decoder, of a seed that is printed.
 */
import { fuzz } from '../../packages/layer/dist/test/fuzz/fuzz-target.js';
import { targets } from '../../packages/layer/dist/test/fuzz/targets.js';

const count = Number(process.argv[2] ?? 100_000);
const seed = Number(process.argv[3] ?? Date.now() % 1_000_000_007);
if (![count, seed].every((number) => Number.isSafeInteger(number) && number > 0)) {
  console.error('use: node bench/layer/fuzz.mjs [COUNT [SEED]]');
  process.exit(2);
}

for (const target of targets) {
  const start = performance.now();
  const { taken, refused } = await fuzz(target, count, seed);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${target.name}: ${taken} taken, ${refused} refused, ${seconds} s (seed ${seed})`);
}
