// Pushes of several machines to one tag, over connections that take up to MAX_DELAY ms each way, in simulated time.
//
//   npm run build && node bench/sharing/concurrent-pushes.mjs [runs] [machines] [maxDelay]
//
// The push is the real one; the registry is a simulation of what registries promise: the last write of a tag stands.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openMachines, simulatePushes } from '../../packages/cache/dist/test/share/push-simulation.js';

const [runs = 1000, count = 4, maxDelay = 5000] = process.argv.slice(2).map(Number);
const worlds = [
  ['tags are listed and removed', {}],
  ['and two in five pushes are killed', { crashes: 0.4 }],
  ['tags are not removed', { refuses: { deletes: true } }],
  ['tags are neither listed nor removed', { refuses: { tags: true, deletes: true } }],
];

const dir = await mkdtemp(join(tmpdir(), 'layercache-bench-'));
const machines = await openMachines(dir, count);
console.log(`${runs} runs of ${count} pushes, up to ${maxDelay} ms each way`);
for (const [name, options] of worlds) {
  let [acknowledged, lost, crashed, partial, tags, time] = [0, 0, 0, 0, 0, 0];
  const begun = performance.now();
  for (let seed = 1; seed <= runs; seed++) {
    const result = await simulatePushes(machines, { ...options, seed, maxDelay });
    acknowledged += result.acknowledged;
    crashed += result.crashed;
    lost += new Set(result.lost).size;
    if (!result.isMainWhole) partial += 1;
    tags = Math.max(tags, result.tags.length);
    time += result.time;
  }
  console.log(
    `${name}: ${acknowledged} acknowledged, ${lost} of them lost, ${crashed} killed; the tag alone has not all in ${partial} runs; ` +
      `at most ${tags} tags at the end; ${(time / runs / 1000).toFixed(1)} s of simulated time a run, ${((performance.now() - begun) / 1000).toFixed(0)} s in all`,
  );
}
for (const { layout } of machines) await layout.close();
await rm(dir, { recursive: true });
