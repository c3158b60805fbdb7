import { chmodSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { nodeFileSystem, type FileSystem } from '@layercache/layout';
import { LayerCache } from '../src/index.js';
import {
  imageOf,
  layerOf,
  packedLayer,
  pushImage,
  tarOf,
  zstdStored,
  type BuiltLayer,
} from './image-builder.js';
import { MediaType, digestOf } from '@layercache/oci';
import { Scratch, bytesOf, failure, filesBelow, memoryRegistry } from './test-cache.js';

const NAME = 'registry.test/r/app:1';

/** A user who owns nothing here. Only root can become that user; who is not root keeps off by the modes of the files. */
const NOBODY = 65_534;

/** Takes the right to write from every file and folder below a folder. */
function withoutWriting(dir: string): void {
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o555 : 0o444);
  }
  chmodSync(dir, 0o555);
}

async function asNobody<T>(work: () => Promise<T>): Promise<T> {
  const user = process.geteuid?.();
  if (user === 0) process.seteuid?.(NOBODY);
  try {
    return await work();
  } finally {
    if (user === 0) process.seteuid?.(user);
  }
}

/** A disk that refuses with `code` whatever would change it. */
function refusing(code: string): FileSystem {
  const refuse = (): never => {
    throw Object.assign(new Error(code), { code, syscall: 'open' });
  };
  const later = (): Promise<never> => Promise.resolve().then(refuse);
  if (code === 'ENOLCK') return { ...nodeFileSystem, tryLock: refuse };
  // A full disk takes no new byte, and lets everybody open what is there.
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return { ...nodeFileSystem, appendSync: refuse, writeSync: refuse, write: later };
  return {
    ...nodeFileSystem,
    openSync: (path, flags, mode) => (flags === 'r' ? nodeFileSystem.openSync(path, flags, mode) : refuse()),
    open: (path, flags, mode) => (flags === 'r' ? nodeFileSystem.open(path, flags, mode) : later()),
    touchSync: refuse,
    touch: later,
    unlinkSync: refuse,
    unlink: later,
    rename: later,
    mkdirSync: refuse,
    mkdir: later,
  };
}

describe('a cache that cannot be written', () => {
  const scratch = new Scratch();
  const layers: readonly BuiltLayer[] = [
    layerOf(tarOf({ 'etc/motd': 'hello', big: Buffer.alloc(300_000, 'b') })),
    packedLayer(tarOf({ 'usr/z': 'zstd' }), zstdStored(tarOf({ 'usr/z': 'zstd' })), MediaType.layerZstd),
  ];
  let dir: string;
  let folder: string;

  beforeEach(async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'r/app', '1', imageOf(layers));
    folder = await scratch.dir();
    chmodSync(folder, 0o755);
    dir = join(folder, 'cache');
    const cache = await LayerCache.open(dir, { registry: () => registry });
    await cache.add(NAME);
    await cache.close();
  });

  afterEach(async () => {
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (entry.isDirectory()) chmodSync(join(entry.parentPath, entry.name), 0o755);
    }
    await scratch.clean();
  });

  /** Everything that is read of a cache, against what was put into it. */
  async function expectServed(cache: LayerCache, out: string): Promise<void> {
    for (const layer of layers) {
      for (const key of [layer.diffID, layer.descriptor.digest]) {
        expect(await bytesOf(cache.layer(key).uncompressed())).to.deep.equal(layer.tar);
        expect(await bytesOf(cache.layer(key).compressed())).to.deep.equal(layer.bytes);
      }
      expect(await cache.layer(layer.descriptor.digest).prove()).to.equal(layer.diffID);
      expect((await cache.layerIndex(layer.diffID)).ztoc.entries).to.have.length.at.least(1);
      expect(await bytesOf(cache.readRange(layer.diffID, 0, 600))).to.deep.equal(layer.tar.subarray(0, 600));
      expect(
        await bytesOf(
          cache
            .registry()
            .fetchBlob('r/app', layer.descriptor.digest)
            .then((b) => b.body),
        ),
      ).to.deep.equal(layer.bytes);
    }
    const view = await cache.view(NAME, { platform: { os: 'linux', architecture: 'amd64' } });
    expect(view.claimed).to.equal(false);
    expect(String(await bytesOf(cache.openFile(NAME, 'etc/motd')))).to.equal('hello');
    expect(String(await bytesOf(cache.openFile(NAME, 'usr/z')))).to.equal('zstd');
    for (const target of [
      `docker-archive:${join(out, 'a.tar')}`,
      `oci-archive:${join(out, 'b.tar')}`,
      `oci:${join(out, 'c')}`,
    ]) {
      await cache.export(NAME, target);
    }
    expect((await cache.verify()).problems).to.deep.equal([]);
    expect((await cache.stats()).blobs).to.be.greaterThan(0);
    await failure('STORAGE', () => cache.pin(NAME));
  }

  async function snapshot(): Promise<string[]> {
    return (await filesBelow(dir)).map((path) => `${path} ${digestOf(readFileSync(join(dir, path)))}`);
  }

  for (const sideState of ['with', 'without']) {
    it(`because it is another user's, ${sideState} side state, serves all that it has`, async () => {
      if (sideState === 'without') await rm(join(dir, '.layercache'), { recursive: true });
      const out = join(folder, 'out');
      mkdirSync(out);
      chmodSync(out, 0o777);
      const before = await snapshot();
      withoutWriting(dir);
      await asNobody(async () => {
        await using cache = await LayerCache.open(dir, { registry: () => memoryRegistry() });
        await expectServed(cache, out);
      });
      expect(await snapshot()).to.deep.equal(before);
    });
  }

  for (const code of ['EROFS', 'EPERM', 'ENOLCK', 'ENOSPC']) {
    it(`because of ${code}, serves all that it has`, async () => {
      const before = await snapshot();
      {
        await using cache = await LayerCache.open(dir, {
          files: refusing(code),
          registry: () => memoryRegistry(),
        });
        await expectServed(cache, await scratch.dir());
      }
      expect(await snapshot()).to.deep.equal(before);
    });
  }
});
