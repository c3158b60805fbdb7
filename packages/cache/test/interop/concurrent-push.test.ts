import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Scratch } from '../test-cache.js';
import { REAL_REGISTRIES, itWith, runTool, startRegistry, type RunningRegistry } from './tools.js';

const PROCESSES = 8;
const LAYERS = 50;

for (const { name, program } of REAL_REGISTRIES) {
  describe(`${PROCESSES} processes that push to one tag of ${name} at the same time`, () => {
    const scratch = new Scratch();
    let running: RunningRegistry | undefined;
    afterEach(async () => {
      await scratch.clean();
      await running?.stop();
      running = undefined;
    });

    itWith([program], `lose none of their ${PROCESSES * LAYERS} layers`, async () => {
      running = await startRegistry(program);
      const target = `${running.host}/team/cache:main`;
      const dir = await scratch.dir();
      const pusher = fileURLToPath(new URL('pusher.js', import.meta.url));
      const printed = await Promise.all(
        Array.from({ length: PROCESSES }, (_, n) =>
          runTool(process.execPath, [pusher, join(dir, String(n)), target, String(LAYERS)]),
        ),
      );
      const pushed = printed.flatMap((text) => text.trim().split('\n'));
      expect(new Set(pushed).size).to.equal(PROCESSES * LAYERS);
      const all = await scratch.cache();
      const result = await all.pull(target);
      expect(result.received.blobs).to.equal(PROCESSES * LAYERS);
      for (const digest of pushed) expect(all.has(digest)).to.equal(true);
    }).timeout(60_000);
  });
}
