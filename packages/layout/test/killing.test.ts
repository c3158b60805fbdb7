import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseImageIndex } from '@layercache/oci';
import { OciLayout } from '../src/index.js';
import { findBroken, runWorker, type Told } from './killing/rig.js';
import { inScratch } from './scratch.js';

describe('processes', function () {
  this.timeout(60_000);

  it('that are killed lose no put that was resolved, and leave no lock', async () => {
    await inScratch(async (dir) => {
      const told: Told[] = [];
      for (let round = 0; round < 3; round++) {
        const workers = ['a', 'b'].map((name, n) =>
          runWorker(dir, `${round}${name}`, { withBlobs: true, killAfter: 20 + round * 37 + n * 11 }),
        );
        told.push(...(await Promise.all(workers)));
        expect(await findBroken(dir, told)).to.deep.equal([]);
      }
      expect(told.reduce((sum, one) => sum + one.put.size, 0)).to.be.greaterThan(20);
    });
  });

  it('that put into one layout at the same time lose nothing, and index.json is valid at every instant', async () => {
    await inScratch(async (dir) => {
      await (await OciLayout.open(dir)).close();
      const working = Promise.all(['a', 'b', 'c'].map((name) => runWorker(dir, name, { count: 60 })));
      const progress = { done: false };
      void working.finally(() => (progress.done = true));
      let readings = 0;
      while (!progress.done) {
        parseImageIndex(readFileSync(join(dir, 'index.json')));
        readings++;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      expect(readings).to.be.greaterThan(10);
      const put = new Set((await working).flatMap((told) => [...told.put]));
      // 20 of each worker's 60 are shared by all three.
      expect(put.size).to.equal(3 * 40 + 20);
      const index = parseImageIndex(readFileSync(join(dir, 'index.json')));
      expect(new Set(index.manifests.map((one) => one.digest))).to.deep.equal(put);
    });
  });
});
