import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
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

describe('Ctrl-C while a credential helper hangs', function () {
  this.timeout(60_000);

  it('ends with 130, and the helper ends with its children', async function () {
    if (process.platform !== 'linux') this.skip();
    const bench = await Bench.open();
    const guarded = createServer((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="registry"' }).end();
    });
    await new Promise<void>((resolve) => guarded.listen(0, '127.0.0.1', resolve));
    try {
      const pids = join(bench.dir, 'pids');
      const helper = join(bench.dir, 'docker-credential-slow');
      await writeFile(
        helper,
        `#!/bin/sh\nsleep 1000 &\necho $$ $! > ${pids}.new\nmv ${pids}.new ${pids}\nwait\n`,
      );
      await chmod(helper, 0o755);
      await mkdir(join(bench.dir, '.docker'));
      await writeFile(join(bench.dir, '.docker', 'config.json'), '{"credsStore":"slow"}');
      bench.env.PATH = `${bench.dir}:${process.env.PATH ?? ''}`;
      const running = bench.start('add', `127.0.0.1:${(guarded.address() as AddressInfo).port}/app:1`);
      const done = finished(running);
      while (!existsSync(pids)) await sleep(10);
      running.kill('SIGINT');
      const { code, stderr } = await done;
      expect(code, stderr).to.equal(130);
      for (const pid of (await readFile(pids, 'utf8')).trim().split(' ')) {
        while (await runs(pid)) await sleep(10);
      }
    } finally {
      guarded.closeAllConnections();
      guarded.close();
      await bench.close();
    }
  });

  /** Whether the process still runs: not as a zombie, which waits for its parent. */
  async function runs(pid: string): Promise<boolean> {
    try {
      return !/^State:\s+[ZX]/m.test(await readFile(`/proc/${pid}/status`, 'utf8'));
    } catch {
      return false;
    }
  }
});

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
