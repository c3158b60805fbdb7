import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, digestOf, isLayercacheError, parseImageIndex, refName } from '@layercache/oci';
import { OciLayout, nodeFileSystem, verify, type FileSystem, type LayoutExtension } from '../src/index.js';
import { blobOf, inScratch, layerPair, manifestNamed } from './scratch.js';

/** What happens at an operation: it fails with this code; half of a write is done; the process is dead before or after. */
type Fault = 'ENOSPC' | 'EIO' | 'EMFILE' | 'EACCES' | 'ESTALE' | 'short' | 'before' | 'after';
const FAULTS: readonly Fault[] = ['ENOSPC', 'EIO', 'short', 'before', 'after'];
/** Those that may say nothing about the bytes, and must not be taken for corruption. */
const REPAIR_FAULTS: readonly Fault[] = [...FAULTS, 'EMFILE', 'EACCES', 'ESTALE'];

type Operation = (...args: unknown[]) => unknown;

class Dead extends Error {}

/** A disk that does one operation wrong. After a death it does nothing more, and what was open is closed. */
class FaultyDisk {
  readonly files: FileSystem;
  count = 0;
  hit: string | undefined;
  #dead = false;
  readonly #at: number;
  readonly #fault: Fault;
  readonly #open = new Set<number>();

  constructor(at: number, fault: Fault) {
    this.#at = at;
    this.#fault = fault;
    const wrapped: Record<string, unknown> = {};
    for (const name of Object.keys(nodeFileSystem)) {
      const real = (nodeFileSystem as unknown as Record<string, Operation>)[name]!;
      const isAsync = /^(mkdir|open|read|write|fsync|close|rename|unlink|stat|touch|readdir)$/.test(name);
      const run = (...args: unknown[]): unknown => this.#run(name, real, args);
      wrapped[name] = isAsync
        ? async (...args: unknown[]) => Promise.resolve().then(() => run(...args))
        : run;
    }
    this.files = wrapped as unknown as FileSystem;
  }

  #run(name: string, real: Operation, args: unknown[]): unknown {
    if (this.#dead) {
      if (name === 'closeSync' || name === 'close') return undefined;
      throw new Dead(name);
    }
    if (this.count++ !== this.#at) return this.#track(name, real(...args), args);
    this.hit = name;
    switch (this.#fault) {
      case 'before':
        throw this.#die(name);
      case 'after': {
        const result = this.#track(name, real(...args), args);
        if (result instanceof Promise) {
          return result.then(() => {
            throw this.#die(name);
          });
        }
        throw this.#die(name);
      }
      case 'short': {
        const bytes = args[1];
        if (!/write|append/i.test(name) || !(bytes instanceof Uint8Array))
          return this.#track(name, real(...args), args);
        return real(args[0], bytes.subarray(0, bytes.length >> 1), ...args.slice(2));
      }
      default:
        // A file that cannot be closed is closed all the same (close(2)).
        if (name === 'close' || name === 'closeSync') this.#track(name, real(...args), args);
        throw Object.assign(new Error(`${this.#fault}: ${name}`), { code: this.#fault, syscall: name });
    }
  }

  #track(name: string, result: unknown, args: unknown[]): unknown {
    if (name === 'openSync') this.#open.add(result as number);
    if (name === 'open') {
      return (result as Promise<number>).then((fd) => {
        this.#open.add(fd);
        return fd;
      });
    }
    if (name === 'close' || name === 'closeSync') this.#open.delete(args[0] as number);
    return result;
  }

  /** The kernel closes what a dead process had open, and so unlocks it. */
  #die(name: string): Dead {
    this.#dead = true;
    for (const fd of this.#open) nodeFileSystem.closeSync(fd);
    return new Dead(name);
  }

  end(): void {
    if (!this.#dead) this.#die('end');
  }
}

const old = Buffer.from('a blob that was there');
const fresh = Buffer.from('a blob that comes');

async function prepare(dir: string): Promise<void> {
  await using layout = await OciLayout.open(dir);
  await layout.write(old);
  await layout.put([blobOf(old), manifestNamed('app'), layerPair(1).gzip, layerPair(1).tar]);
}

/** DESIGN's invariants, as seen by one who comes after. */
async function check(dir: string, resolved: boolean, action: Action): Promise<void> {
  if (existsSync(join(dir, 'index.json'))) parseImageIndex(readFileSync(join(dir, 'index.json')));
  const layout = await OciLayout.open(dir, { lockTimeout: 500 });
  try {
    expect(layout.lookup(layerPair(1).tar.digest), 'pairs').to.have.length(2);
    expect(layout.lookupTag('app'), 'names').not.to.equal(undefined);
    const oldEntries = layout.lookup(digestOf(old));
    if (action === 'remove' || action === 'eviction') {
      if (resolved) expect(oldEntries, 'removed').to.deep.equal([]);
      if (oldEntries.length > 0) expect(await layout.readBytes(digestOf(old))).to.deep.equal(old);
    } else {
      expect(oldEntries, 'what was there').to.have.length(1);
      expect(await layout.readBytes(digestOf(old))).to.deep.equal(old);
    }
    const entries = layout.lookup(digestOf(fresh));
    const isPut = action === 'put' || action === 'limited put';
    if (resolved && isPut) expect(entries, 'resolved put').to.have.length(1);
    if (entries.length > 0 && isPut) expect(await layout.readBytes(digestOf(fresh))).to.deep.equal(fresh);
    for (const name of readdirSync(join(dir, '.layercache/ingest'))) expect(name).not.to.match(/\.tmp$/);
    await layout.put(layerPair(2).gzip);
    await layout.sync();
  } finally {
    await layout.close();
  }
  const index = parseImageIndex(readFileSync(join(dir, 'index.json')));
  expect(index.manifests.map((one) => one.digest)).to.include(layerPair(2).gzip.digest);
}

type Action = 'open' | 'put' | 'commit' | 'remove' | 'limited put' | 'eviction' | 'repair';

const extension: LayoutExtension = {
  adopt: () => Promise.resolve([]),
  derive: async (context) => {
    const { entries } = context;
    const before = entries.find((entry) => refName(entry) === 'derived');
    const digest = await context.writeBlob(Buffer.from(String(entries.length)));
    const gone = before === undefined || before.digest === digest ? [] : [before.digest];
    const annotations = { 'org.opencontainers.image.ref.name': 'derived' };
    return {
      put: [{ mediaType: MediaType.octetStream, digest, size: 1, annotations }],
      drop: gone,
      unlink: gone,
    };
  },
};

async function act(dir: string, action: Action, disk: FaultyDisk): Promise<void> {
  const layout = await OciLayout.open(dir, {
    files: disk.files,
    durability: 'fsync',
    lockTimeout: 50,
    extension,
    limits: action === 'limited put' || action === 'eviction' ? { maxSize: 1_000_000 } : undefined,
  });
  if (action === 'put' || action === 'limited put') {
    await layout.write(fresh, { digest: digestOf(fresh), size: fresh.length });
    await layout.put(blobOf(fresh));
  } else if (action === 'commit') {
    await layout.put(layerPair(3).gzip);
    await layout.sync();
  } else if (action === 'remove') {
    await layout.remove(digestOf(old));
  } else if (action === 'eviction') {
    await layout.evict([{ digest: digestOf(old), usedAt: new Date() }]);
  } else if (action === 'repair') {
    const report = await verify(layout, { repair: true, files: disk.files, concurrency: 1, grace: 0 });
    for (const { kind } of report.problems) expect(kind).to.be.oneOf(['unreadable', 'invalid', 'orphaned']);
  }
}

describe('when the disk fails, or the process dies', function () {
  this.timeout(60_000);
  // Every operation in the long form; here, each operation fails in one of the ways.
  const every = process.env.LAYERCACHE_SOAK === undefined ? FAULTS.length : 1;

  for (const action of ['open', 'put', 'commit', 'remove', 'limited put', 'eviction', 'repair'] as const) {
    it(`at any operation of one ${action}, the layout holds what it promised`, async () => {
      const hits = new Set<string>();
      const faults = action === 'repair' ? REPAIR_FAULTS : FAULTS;
      for (const fault of faults) {
        for (let at = faults.indexOf(fault) % every; ; at += every) {
          const finished = await inScratch(async (dir) => {
            await prepare(dir);
            const disk = new FaultyDisk(at, fault);
            let resolved = false;
            try {
              await act(dir, action, disk);
              resolved = true;
            } catch (error) {
              if (!(error instanceof Dead) && !isLayercacheError(error)) throw error;
              if (isLayercacheError(error)) expect(error.message).not.to.contain('\n');
            }
            disk.end();
            if (disk.hit !== undefined) hits.add(disk.hit);
            try {
              await check(dir, resolved, action);
            } catch (error) {
              throw new Error(`${fault} at ${disk.hit ?? 'no'} operation ${at} of ${action}`, {
                cause: error,
              });
            }
            return disk.hit === undefined;
          });
          if (finished) break;
        }
      }
      if (action === 'commit')
        expect([...hits]).to.include.members(['fsync', 'rename', 'write', 'appendSync']);
    });
  }

  it('in a full disk, says so', async () => {
    await inScratch(async (dir) => {
      const full: FileSystem = {
        ...nodeFileSystem,
        write: () => Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC', syscall: 'write' })),
      };
      await prepare(dir);
      await using layout = await OciLayout.open(dir, { files: full });
      try {
        await layout.write(fresh);
        expect.fail('was written');
      } catch (error) {
        expect(error).to.include({ code: 'STORAGE' });
        expect((error as Error).message).to.equal(
          'cannot write blob: the disk is full; free some space and try again (ENOSPC)',
        );
      }
      expect(await layout.readBytes(digestOf(old))).to.deep.equal(old);
    });
  });

  it('in a folder that cannot be written, reads and says why it does not write', async () => {
    await inScratch(async (dir) => {
      await prepare(dir);
      const refuse = (): never => {
        throw Object.assign(new Error('read-only'), { code: 'EROFS', syscall: 'open' });
      };
      const readOnly: FileSystem = {
        ...nodeFileSystem,
        openSync: (path, flags, mode) =>
          flags === 'r' ? nodeFileSystem.openSync(path, flags, mode) : refuse(),
        open: (path, flags, mode) =>
          flags === 'r' ? nodeFileSystem.open(path, flags, mode) : Promise.resolve().then(refuse),
        mkdir: () => Promise.resolve().then(refuse),
        mkdirSync: refuse,
      };
      for (const sideState of [true, false]) {
        if (!sideState) {
          rmSync(join(dir, '.layercache'), { recursive: true });
        }
        await using layout = await OciLayout.open(dir, { files: readOnly });
        expect(layout.lookup(layerPair(1).tar.digest)).to.have.length(2);
        expect(await layout.readBytes(digestOf(old))).to.deep.equal(old);
        try {
          await layout.put(layerPair(2).gzip);
          expect.fail('was put');
        } catch (error) {
          expect(error).to.include({ code: 'STORAGE' });
          expect((error as Error).message).to.contain('read-only');
        }
      }
    });
  });
});
