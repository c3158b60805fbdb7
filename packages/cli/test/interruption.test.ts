import { randomBytes } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import { MemoryRegistry, type FetchedBlob } from '@layercache/registry';
import { pushImageOfFolders } from '../src/demo/make-image.js';
import { Bench, finished } from './program.js';

/** Sends blobs slowly until it is told that it has been slow for long enough. */
class SlowRegistry extends MemoryRegistry {
  slow = true;
  sent = 0;

  override async fetchBlob(...args: Parameters<MemoryRegistry['fetchBlob']>): Promise<FetchedBlob> {
    const fetched = await super.fetchBlob(...args);
    return { ...fetched, body: Readable.from(this.#slowly(fetched.body), { objectMode: false }) };
  }

  async *#slowly(body: Readable): AsyncGenerator<Uint8Array> {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      if (this.slow) await sleep(20);
      this.sent += chunk.length;
      yield chunk;
    }
  }
}

describe('Ctrl-C in the middle of add', function () {
  this.timeout(60_000);

  it('ends with 130 and one line; the next add goes on from there, and nothing temporary stays', async () => {
    const registry = new SlowRegistry();
    const bench = await Bench.open(registry);
    try {
      const root = join(bench.dir, 'files');
      await mkdir(join(root, 'one'), { recursive: true });
      await writeFile(join(root, 'one', 'data'), randomBytes(4_000_000));
      const made = await pushImageOfFolders(root, registry, 'demo/app', '1');
      const total = made.layers.reduce((sum, layer) => sum + layer.descriptor.size, 0);

      const running = bench.start('add', `${bench.host}/demo/app:1`);
      const done = finished(running);
      while (registry.sent < 1_500_000) await sleep(10);
      running.kill('SIGINT');
      const interrupted = await done;
      expect(interrupted.code, interrupted.stderr).to.equal(130);
      expect(interrupted.stderr.trimEnd().split('\n')).to.have.length(1);

      registry.slow = false;
      registry.sent = 0;
      const again = await bench.run('add', `${bench.host}/demo/app:1`);
      expect(again.code, again.stderr).to.equal(0);
      expect(registry.sent).to.be.lessThan(total - 500_000);
      expect(await readdir(join(bench.cache, '.layercache', 'ingest'))).to.deep.equal([]);
      expect((await bench.run('has', made.layers[0]!.diffID)).code).to.equal(0);
    } finally {
      await bench.close();
    }
  });
});
