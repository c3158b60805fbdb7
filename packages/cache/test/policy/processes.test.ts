import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { parseImageIndex, type Digest } from '@layercache/oci';
import { MemoryRegistry, createRegistryServer } from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch } from '../test-cache.js';

const WORKER = fileURLToPath(new URL('processes/worker.js', import.meta.url));
const IMAGES = 40;
const running = new Set<Worker>();

class Worker {
  readonly #child: ChildProcess;
  readonly lines: string[] = [];
  #errors = '';
  readonly #ended: Promise<void>;

  constructor(...args: string[]) {
    this.#child = spawn(process.execPath, [WORKER, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this);
    let text = '';
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      this.lines.push(...lines);
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#errors += chunk.toString()));
    this.#ended = new Promise((resolve) =>
      this.#child.once('close', () => {
        running.delete(this);
        resolve();
      }),
    );
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** What it said. Fails with what it failed with. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<readonly string[]> {
    this.signal(signal);
    await this.#ended;
    if (this.#child.exitCode !== 0 && this.#child.signalCode !== signal) throw new Error(this.#errors);
    return this.lines;
  }

  async says(count: number, what: string): Promise<void> {
    while (this.lines.filter((line) => line.startsWith(what)).length < count) {
      if (this.#child.exitCode !== null) throw new Error(`it ended: ${this.#errors}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** Bytes of all files by inode; undefined when one went meanwhile. */
function walk(dir: string): Map<number, number> | undefined {
  const sizes = new Map<number, number>();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const facts = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (facts === undefined) return undefined;
    sizes.set(facts.ino, facts.size);
  }
  return sizes;
}

/** Bytes of all files, once nothing moves any more: a process that is told to stop does so in its own time. */
function diskUse(dir: string): number {
  for (let before = walk(dir); ;) {
    const now = walk(dir);
    if (now !== undefined && before?.size === now.size) {
      const same = [...now].every(([ino, size]) => before?.get(ino) === size);
      if (same) return [...now.values()].reduce((sum, size) => sum + size, 0);
    }
    before = now;
  }
}

describe('processes that share a cache', function () {
  this.timeout(120_000);
  const scratch = new Scratch();
  const registry = new MemoryRegistry();
  const server = createRegistryServer(registry);
  const images: BuiltImage[] = [];
  let host: string;

  before(async () => {
    await server.listen({ host: '127.0.0.1', port: 0 });
    host = new URL(server.url).host;
    const base = layerOf(tarOf({ base: randomBytes(30_000) }));
    for (let n = 0; n < IMAGES; n++) {
      const image = imageOf([base, layerOf(tarOf({ [`file${n}`]: randomBytes(20_000 + n * 3000) }))]);
      images.push(image);
      await pushImage(registry, 'r/app', String(n), image);
    }
  });
  after(() => server.close());
  afterEach(async () => {
    await Promise.all([...running].map((worker) => worker.end('SIGKILL')));
    await scratch.clean();
  });

  /** Every entry has its blob, and every image all of its parts. */
  async function checkWhole(dir: string): Promise<void> {
    const cache = await scratch.cache({ dir });
    for (const { descriptor } of cache.entries()) {
      expect(await cache.blobState(descriptor), descriptor.digest).to.equal('local');
    }
    for (const { descriptor } of cache.images()) {
      const image = images.find((each) => each.descriptor.digest === descriptor.digest)!;
      for (const part of [image.config.descriptor, ...image.layers.map((layer) => layer.descriptor)]) {
        expect(cache.lookup(part.digest), part.digest).not.to.deep.equal([]);
      }
    }
    expect((await cache.verify()).problems).to.deep.equal([]);
  }

  it('prune beside readers and writers: no read fails, no put is lost', async () => {
    const dir = join(await scratch.dir(), 'cache');
    const workers = ['write', 'write', 'read', 'read', 'prune'].map(
      (role, n) => new Worker(role, dir, host, String(n * 1000), String(IMAGES)),
    );
    const [one, two, reader, other, pruner] = workers as [Worker, Worker, Worker, Worker, Worker];
    await Promise.all([
      one.says(40, 'added'),
      two.says(40, 'added'),
      reader.says(60, 'read'),
      other.says(60, 'read'),
      pruner.says(20, 'gone'),
    ]);
    const said = await Promise.all(workers.map((worker) => worker.end()));
    await checkWhole(dir);

    const gone = new Set(
      (said[4] ?? []).filter((line) => line.startsWith('gone')).map((line) => line.slice(5)),
    );
    const cache = await scratch.cache({ dir });
    const added = new Set(
      [...(said[0] ?? []), ...(said[1] ?? [])].filter((line) => line.startsWith('added')),
    );
    for (const line of added) {
      const image = images[Number(line.slice(line.lastIndexOf(':') + 1))]!;
      const parts: Digest[] = [
        image.descriptor.digest,
        ...image.layers.map((layer) => layer.descriptor.digest),
      ];
      for (const digest of parts) {
        const here = cache.lookup(digest).length > 0;
        expect(here || gone.has(digest), `${digest} of ${line} is there, or was pruned`).to.equal(true);
      }
    }
    expect(gone.size).to.be.greaterThan(5);
  });

  it('keep one limit together, at every instant, also when one of them is killed', async () => {
    const dir = join(await scratch.dir(), 'cache');
    const limit = 1_500_000;
    const start = (role: string, n: number): Worker =>
      new Worker(role, dir, host, String(n * 1000), String(IMAGES), String(limit));
    const workers = [start('write', 1), start('write', 2), start('write', 3), start('read', 4)];
    let most = 0;
    let samples = 0;
    const sample = (): void => {
      // While nobody runs, what is there is there at one instant.
      for (const worker of workers) worker.signal('SIGSTOP');
      most = Math.max(most, diskUse(dir));
      samples++;
      for (const worker of workers) worker.signal('SIGCONT');
    };
    await Promise.all(workers.map((worker) => worker.says(1, 'ready')));
    const progress = { done: false };
    const sampler = (async () => {
      while (!progress.done) {
        sample();
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    try {
      await workers[0]?.says(5, 'added');
      for (let round = 0; round < 3; round++) {
        await workers[0]?.end('SIGKILL');
        workers[0] = start('write', 10 + round);
        await workers[0].says(8, 'added');
      }
      await workers[3]?.says(20, 'read');
    } finally {
      progress.done = true;
      await sampler;
    }
    for (const worker of workers) await worker.end();
    expect(samples).to.be.greaterThan(20);
    expect(most).to.be.at.most(limit);
    expect(most, 'the limit is used').to.be.greaterThan(limit * 0.7);
    parseImageIndex(readFileSync(join(dir, 'index.json')));
    await checkWhole(dir);
  });
});
