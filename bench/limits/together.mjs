/**
 * Everything at once, in one cache with a limit: four processes that add, pin, read, remove and prune images, each of them killed
 * at random moments and started again; skopeo, umoci, and a tool that truncates and rewrites index.json in place.
 *
 * `node bench/limits/together.mjs [--seconds 60 | --minutes 30]`. Part of `npm run soak`.
 *
 * This process stops all others several times a second and adds up every file. In the end each name must mean what its last
 * writer said, and be whole. An image that is not there must be one that somebody removed or said to have evicted.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { LayerCache } from '@layercache/cache';
import { makeImage, writeBlobs, writeLayout } from './together-image.mjs';

const WORKER = fileURLToPath(new URL('together-worker.mjs', import.meta.url));
const WRITERS = 4;
const MAX_SIZE = 1024 * 1024;
const HOST = 'soak.test';
/** Bytes that other tools may have written since one of ours last looked: nobody asks them to keep below a limit. */
const UNSEEN = 64 * 1024;

const has = (tool) => spawnSync(tool, ['--version']).status === 0;
const pick = (n) => Math.floor(Math.random() * n);

/** What everybody said, and what may follow from it. */
class Story {
  /** By name: what was written when, in the order in which it began. `digest` is null for a removal. */
  writes = new Map();
  /** Names with a pin, and since when. */
  pinned = new Map();
  /** Digests of manifests, and when they were last said to be evicted. */
  evicted = new Map();
  /** When a process was killed that was evicting. */
  silent = [];
  counts = { writes: 0, reads: 0, kills: 0, evictions: 0, failed: 0, tools: 0, toolsFailed: 0 };

  begin(name, digest, at) {
    const write = { name, digest, began: at, ended: undefined, done: false };
    const before = this.writes.get(name) ?? [];
    before.push(write);
    this.writes.set(name, before);
    return write;
  }

  end(write, done, at) {
    write.ended = at;
    write.done = done;
    if (done) this.counts.writes++;
    this.#forget(write.name);
  }

  /** What is over: another write began after it had ended, and was done. */
  #forget(name) {
    const all = this.writes.get(name);
    const isOver = (one) =>
      one.ended !== undefined && all.some((other) => other.done && other.began > one.ended);
    this.writes.set(
      name,
      all.filter((one) => !isOver(one)),
    );
  }
}

/** One writer, started again whenever it was killed. */
class Writer {
  child;
  #story;
  #task;
  #write;
  #pin;
  #evicting = false;
  #rest = '';
  errors = '';
  #ended;

  constructor(story, task) {
    this.#story = story;
    this.#task = task;
  }

  start() {
    this.#rest = '';
    this.child = spawn(process.execPath, [WORKER, JSON.stringify(this.#task)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout.on('data', (chunk) => this.#hear(chunk.toString()));
    this.child.stderr.on('data', (chunk) => (this.errors += chunk));
    this.#ended = new Promise((resolve) => this.child.once('close', resolve));
  }

  async end(signal) {
    const { child } = this;
    child.kill(signal);
    await this.#ended;
    if (signal === 'SIGKILL') {
      this.#story.counts.kills++;
      if (this.#evicting) this.#story.silent.push(Date.now());
      if (this.#write !== undefined) this.#story.end(this.#write, false, Date.now());
      this.#write = undefined;
      this.#evicting = false;
      // One that had not come to the point of listening for SIGTERM had not opened the cache.
    } else if (child.exitCode !== 0 && child.signalCode !== 'SIGTERM')
      throw new Error(`a writer failed: ${this.errors}`);
  }

  #hear(text) {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) this.#event(JSON.parse(line));
  }

  #event({ op, at, name, digest, pin }) {
    const story = this.#story;
    if (op === 'begin') {
      this.#write = name === undefined ? undefined : story.begin(name, digest, at);
      this.#pin = pin;
    } else if (op === 'done' || op === 'failed') {
      this.#evicting = false;
      if (op === 'failed') story.counts.failed++;
      if (this.#write !== undefined) story.end(this.#write, op === 'done', at);
      else if (this.#pin !== undefined && op === 'done') story.pinned.set(this.#pin, at);
      else if (op === 'done') story.counts.reads++;
      this.#write = undefined;
      this.#pin = undefined;
    } else if (op === 'evicting') this.#evicting = true;
    else if (op === 'evicted') {
      story.counts.evictions++;
      story.evicted.set(digest, at);
    }
  }
}

/** Tools that know nothing of us, one at a time: two at once would undo each other's work, whatever we do. */
class Tools {
  child;
  /** Whether index.json is half written. Nobody is stopped then: a tool takes milliseconds for it, not seconds. */
  isWriting = false;
  /** Whether the others are stopped. */
  isPaused = false;
  #dir;
  #scratch;
  #story;
  #names = [];
  #number = 0;

  constructor(dir, scratch, story) {
    this.#dir = dir;
    this.#scratch = scratch;
    this.#story = story;
  }

  async run() {
    const kinds = [() => this.#rewrite()];
    if (has('skopeo')) kinds.push(() => this.#skopeo());
    if (has('umoci')) kinds.push(() => this.#umoci());
    await kinds[pick(kinds.length)]();
  }

  async #told(name, digest, work) {
    const write = this.#story.begin(name, digest, Date.now());
    const done = await work();
    this.#story.counts.tools++;
    if (!done) this.#story.counts.toolsFailed++;
    this.#story.end(write, done, Date.now());
    return done;
  }

  #spawn(tool, args) {
    return new Promise((resolve) => {
      this.child = spawn(tool, args, { stdio: 'ignore' });
      this.child.once('close', (code) => {
        this.child = undefined;
        resolve(code === 0);
      });
    });
  }

  async #skopeo() {
    const image = makeImage(`skopeo ${this.#number++}`, 3000);
    const name = `skopeo-${pick(3)}`;
    const source = mkdtempSync(join(this.#scratch, 'source-'));
    writeLayout(source, image, 'it');
    // It never compresses again what it copies: the digest stays.
    const args = ['copy', '--preserve-digests', `oci:${source}:it`, `oci:${this.#dir}:${name}`];
    if (await this.#told(name, image.digest, () => this.#spawn('skopeo', ['--insecure-policy', ...args])))
      this.#names.push([name, image.digest]);
    rmSync(source, { recursive: true });
  }

  async #umoci() {
    const known = this.#names[pick(this.#names.length)];
    if (known === undefined) return;
    const index = this.#read();
    const entry = index?.manifests.find(
      (one) => one.annotations?.['org.opencontainers.image.ref.name'] === known[0],
    );
    if (entry === undefined) return;
    const name = `umoci-${pick(3)}`;
    if (pick(4) === 0) {
      await this.#told(name, null, () => this.#spawn('umoci', ['rm', '--image', `${this.#dir}:${name}`]));
    } else {
      await this.#told(name, entry.digest, () =>
        this.#spawn('umoci', ['tag', '--image', `${this.#dir}:${known[0]}`, name]),
      );
    }
  }

  #read() {
    try {
      return JSON.parse(readFileSync(join(this.#dir, 'index.json'), 'utf8'));
    } catch {
      return undefined;
    }
  }

  /** Reads index.json, takes its time, and writes it in place in two pieces. */
  async #rewrite() {
    const image = makeImage(`rewritten ${this.#number++}`, 2000);
    const name = `rewritten-${pick(3)}`;
    await this.#told(name, image.digest, async () => {
      const entry = writeBlobs(this.#dir, image, name);
      const index = this.#read();
      if (index === undefined) return false;
      await sleep(pick(50));
      const isOld = (one) => one.annotations?.['org.opencontainers.image.ref.name'] === name;
      const manifests = [...index.manifests.filter((one) => !isOld(one)), entry];
      const bytes = Buffer.from(JSON.stringify({ ...index, manifests }));
      const fd = openSync(join(this.#dir, 'index.json'), 'r+');
      while (this.isPaused) await sleep(1);
      this.isWriting = true;
      try {
        ftruncateSync(fd, 0);
        const half = bytes.length >> 1;
        writeSync(fd, bytes, 0, half, 0);
        await sleep(pick(5));
        writeSync(fd, bytes, half, bytes.length - half, half);
      } finally {
        closeSync(fd);
        this.isWriting = false;
      }
      return true;
    });
  }
}

function diskUse(dir) {
  const sizes = new Map();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const facts = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (facts !== undefined) sizes.set(facts.ino, facts.size);
  }
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

/** Once nothing has changed between two walks, everybody has stopped. */
async function stoppedUse(dir) {
  for (let before = diskUse(dir); ;) {
    await sleep(1);
    const now = diskUse(dir);
    if (now === before) return now;
    before = now;
  }
}

async function judge(dir, story) {
  const wrong = [];
  const there = { names: 0, evicted: 0, silent: 0 };
  const cache = await LayerCache.open(dir);
  try {
    const named = new Map([...cache.images()].map(({ name, descriptor }) => [name, descriptor.digest]));
    for (const [name, writes] of story.writes) {
      const found = named.get(name) ?? null;
      const pinnedAt = story.pinned.get(name);
      const may = new Set(writes.map(({ digest }) => digest));
      // Before the first write that was done there was nothing.
      if (!writes.some(({ done }) => done)) may.add(null);
      if (may.has(found)) there.names++;
      else if (found !== null)
        wrong.push(`${name} means ${found}, and was said to mean ${[...may].join(' or ')}`);
      else if (pinnedAt !== undefined) wrong.push(`${name} is pinned and gone`);
      else {
        const since = Math.max(...writes.filter(({ done }) => done).map(({ began }) => began));
        if (writes.some(({ digest }) => (story.evicted.get(digest) ?? 0) >= since)) there.evicted++;
        else if (story.silent.some((at) => at >= since)) there.silent++;
        else wrong.push(`${name} is gone, and nobody said so`);
      }
    }
    for (const name of named.keys()) if (!story.writes.has(name)) wrong.push(`${name} was never written`);
    for (const name of named.keys()) {
      try {
        // Everything it refers to, by all the names of its layers, and hashed on the way.
        await cache.export(name, `docker-archive:${dir}.tar`);
      } catch (error) {
        wrong.push(`${name} is not whole: ${error.message}`);
      }
      rmSync(`${dir}.tar`, { force: true });
    }
    const { problems } = await cache.verify();
    for (const { message } of problems) wrong.push(`verify: ${message}`);
  } finally {
    await cache.close();
  }
  return { wrong, there };
}

export async function together(milliseconds) {
  const scratch = mkdtempSync(join(tmpdir(), 'layercache-together-'));
  const dir = join(scratch, 'cache');
  const story = new Story();
  const writers = Array.from(
    { length: WRITERS },
    (_, id) => new Writer(story, { dir, id, maxSize: MAX_SIZE, host: HOST }),
  );
  const tools = new Tools(dir, scratch, story);
  try {
    await (await LayerCache.open(dir, { limits: { maxSize: MAX_SIZE } })).close();
    for (const writer of writers) writer.start();
    const end = Date.now() + milliseconds;
    const state = { most: 0, samples: 0 };
    const work = async (run) => {
      while (Date.now() < end) await run();
    };
    await Promise.all([
      work(async () => {
        await tools.run();
        await sleep(100 + pick(400));
      }),
      work(async () => {
        await sleep(500 + pick(2500));
        const writer = writers[pick(WRITERS)];
        if (writer.child.exitCode !== null) throw new Error(`a writer failed: ${writer.errors}`);
        await writer.end('SIGKILL');
        writer.start();
      }),
      work(async () => {
        while (tools.isWriting) await sleep(1);
        const all = [
          ...writers.map(({ child }) => child),
          ...(tools.child === undefined ? [] : [tools.child]),
        ];
        tools.isPaused = true;
        for (const child of all) child.kill('SIGSTOP');
        state.most = Math.max(state.most, await stoppedUse(dir));
        state.samples++;
        for (const child of all) child.kill('SIGCONT');
        tools.isPaused = false;
        await sleep(100);
      }),
    ]);
    for (const writer of writers) await writer.end('SIGTERM');
    const { wrong, there } = await judge(dir, story);
    if (state.most > MAX_SIZE + UNSEEN)
      wrong.push(`the folder had ${state.most} bytes, ${state.most - MAX_SIZE} more than its limit`);
    const { counts } = story;
    console.log(
      `${WRITERS} writers and ${counts.tools} runs of other tools (${counts.toolsFailed} failed) in ${Math.round(milliseconds / 1000)} s: ` +
        `${counts.writes} writes, ${counts.reads} reads, ${counts.kills} SIGKILLs, ${counts.evictions} evictions, ${counts.failed} gave up; ` +
        `${there.names} names mean what was said last, ${there.evicted} are evicted, ${there.silent} may be, by a process that was killed over it; ` +
        `most at any of ${state.samples} instants: ${state.most} of ${MAX_SIZE} bytes`,
    );
    if (wrong.length > 0) throw new Error(`${wrong.length} wrong: ${wrong.slice(0, 20).join('; ')}`);
  } finally {
    for (const { child } of writers) child?.kill('SIGKILL');
    if (process.env.KEEP === undefined) rmSync(scratch, { recursive: true, force: true });
    else console.log(scratch);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { seconds: { type: 'string' }, minutes: { type: 'string' } } });
  const seconds = values.minutes === undefined ? Number(values.seconds ?? 60) : Number(values.minutes) * 60;
  await together(seconds * 1000);
}
