/**
 * The long form of the tests of layout and cache: mutated bytes, kills, many writers, every fault, other tools beside ours,
 * 100,000 layers. `npm run soak`
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OciLayout } from '@layercache/layout';
import { parseImageIndex } from '@layercache/oci';
import { together } from '../limits/together.mjs';
import { fuzzDecoders } from './fuzz.mjs';
import { findBroken, runWorker } from '../../packages/layout/dist/test/killing/rig.js';

const KILLS = Number(process.env.KILLS ?? 500);
const WRITERS = 8;
const PUTS = 500;

async function inScratch(run) {
  const dir = mkdtempSync(join(tmpdir(), 'layercache-soak-'));
  try {
    await run(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** A layout serves a few dozen kills, so that reopening stays quick and starts from many states. */
async function kill() {
  let kills = 0;
  let puts = 0;
  while (kills < KILLS) {
    await inScratch(async (dir) => {
      const told = [];
      for (let round = 0; round < 10 && kills < KILLS; round++) {
        const names = ['a', 'b'].slice(0, KILLS - kills);
        const workers = names.map((name) =>
          runWorker(dir, `${round}${name}`, { withBlobs: true, killAfter: Math.random() * 120 }),
        );
        told.push(...(await Promise.all(workers)));
        kills += names.length;
        const broken = await findBroken(dir, told);
        if (broken.length > 0) throw new Error(`after ${kills} kills: ${broken.join('; ')}`);
      }
      puts += told.reduce((sum, one) => sum + one.put.size, 0);
    });
  }
  console.log(
    `${kills} SIGKILLs under load: all of ${puts} resolved puts there, no corrupt byte, no lock left`,
  );
}

async function writeTogether() {
  await inScratch(async (dir) => {
    await (await OciLayout.open(dir)).close();
    const state = { done: false };
    const writers = Array.from({ length: WRITERS }, (_, n) => runWorker(dir, `w${n}`, { count: PUTS }));
    const all = Promise.all(writers).finally(() => (state.done = true));
    let readings = 0;
    while (!state.done) {
      parseImageIndex(readFileSync(join(dir, 'index.json')));
      readings++;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const put = new Set((await all).flatMap((told) => [...told.put]));
    const listed = new Set(
      parseImageIndex(readFileSync(join(dir, 'index.json'))).manifests.map((one) => one.digest),
    );
    const lost = [...put].filter((digest) => !listed.has(digest));
    if (lost.length > 0) throw new Error(`${lost.length} puts are lost`);
    console.log(
      `${WRITERS} processes × ${PUTS} puts: all ${put.size} distinct present, index.json valid in ${readings} readings`,
    );
  });
}

function run(what, args, env = {}) {
  const start = performance.now();
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) throw new Error(`${what} failed`);
  console.log(`${what}: ${((performance.now() - start) / 1000).toFixed(0)} s`);
}

await fuzzDecoders();
await kill();
await writeTogether();
const mocha = join(import.meta.dirname, '../../node_modules/mocha/bin/mocha.js');
const faults = join(import.meta.dirname, '../../packages/layout/dist/test/faults.test.js');
run('every fault at every operation', [mocha, '--no-config', '--timeout', '600000', faults], {
  LAYERCACHE_SOAK: '1',
});
const cacheFaults = join(import.meta.dirname, '../../packages/cache/dist/test/faults.test.js');
run('every operation of a cache failed once', [mocha, '--no-config', cacheFaults], { LAYERCACHE_SOAK: '1' });
await together(60_000);
const size = join(import.meta.dirname, '../../packages/layout/dist/test/size.test.js');
run('400,000 entries', [mocha, '--no-config', size], { LAYERCACHE_SOAK: '1' });
run('100,000 layers', ['--expose-gc', join(import.meta.dirname, 'index-map.mjs')]);
