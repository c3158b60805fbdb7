import { expect } from 'chai';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLayercacheError } from '@layercache/oci';
import { extractView } from '../../src/extract/extract-view.js';
import { MergedView } from '../../src/merge/merged-view.js';
import { decodeBytes, encodeBytes } from '../../src/tar/byte-string.js';
import { portionsOf } from '../layers.js';
import { archive, layerOf, type Described } from '../merge/layer-stacks.js';

async function* stream(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (const portion of portionsOf(bytes, 700)) yield await Promise.resolve(portion);
}

describe('extracting a merged view', () => {
  let folder = '';
  const isRoot = process.geteuid?.() === 0;

  beforeEach(async () => {
    folder = await fs.mkdtemp(join(tmpdir(), 'layercache-extract-'));
  });
  afterEach(async () => {
    await fs.rm(folder, { recursive: true, force: true });
  });

  async function extract(
    layers: readonly (readonly Described[])[],
    target = join(folder, 'out'),
    signal?: AbortSignal,
  ): ReturnType<typeof extractView> {
    const tars = layers.map((entries) => archive(...entries));
    const files = tars.map(layerOf);
    const openTar = (diffID: string): AsyncGenerator<Uint8Array> =>
      stream(tars[files.findIndex((layer) => layer.diffID === diffID)]!);
    return extractView(MergedView.of(files), target, { openTar, signal });
  }

  it('writes files, folders and links with their contents, modes and times', async () => {
    const big = Buffer.alloc(5000, 'layer ');
    const result = await extract([
      [
        { name: './', mode: 0o750, mtime: 99 },
        { name: 'a/', mode: 0o500, mtime: 100 },
        { name: 'a/f', data: big, mode: 0o640, mtime: 101 },
        { name: 'a/gone', data: 'x' },
      ],
      [
        { name: 'a/.wh.gone' },
        { name: 'a/', mode: 0o555, mtime: 102 },
        { name: 'g', data: 'new' },
        { name: 'h', type: '1', linkname: 'a/f' },
        { name: 'l', type: '2', linkname: '/etc/passwd', mtime: 103 },
        { name: 'pipe', type: '6' },
        { name: decodeBytes(Buffer.from([0x66, 0xff])), data: 'bytes', pax: { 'SCHILY.xattr.user.x': '1' } },
      ],
    ]);
    const out = join(folder, 'out');
    expect(await fs.readFile(join(out, 'a/f'))).to.deep.equal(big);
    expect(await fs.readdir(join(out, 'a'))).to.deep.equal(['f']);
    expect(await fs.readFile(join(out, 'g'), 'utf8')).to.equal('new');
    expect(await fs.readlink(join(out, 'l'))).to.equal('/etc/passwd');
    const odd = Buffer.concat([Buffer.from(`${out}/`), encodeBytes('f\udcff')]);
    expect(await fs.readFile(odd, 'utf8')).to.equal('bytes');
    const [root, dir, file, link] = await Promise.all(
      ['', 'a', 'a/f', 'h'].map((name) => fs.lstat(join(out, name))),
    );
    expect(root!.mode & 0o7777).to.equal(0o750);
    expect(root!.mtimeMs).to.equal(99_000);
    expect(dir!.mode & 0o7777).to.equal(0o555);
    expect(dir!.mtimeMs).to.equal(102_000);
    expect(file!.mode & 0o7777).to.equal(0o640);
    expect(file!.mtimeMs).to.equal(101_000);
    expect(link!.ino).to.equal(file!.ino);
    expect((await fs.lstat(join(out, 'l'))).mtimeMs).to.equal(103_000);
    expect(result).to.deep.equal({
      names: 7,
      bytes: 5008,
      skipped: ['pipe'],
      hasOwners: isRoot,
      withoutXattrs: 1,
    });
  });

  it('sets owners and set-uid bits as root, and neither otherwise', async () => {
    await extract([[{ name: 'f', data: 'x', uid: 1234, gid: 99, mode: 0o4755 }]]);
    const { uid, gid, mode } = await fs.lstat(join(folder, 'out/f'));
    if (isRoot) expect({ uid, gid, mode: mode & 0o7777 }).to.deep.equal({ uid: 1234, gid: 99, mode: 0o4755 });
    else expect({ uid, mode: mode & 0o7777 }).to.deep.equal({ uid: process.geteuid?.(), mode: 0o755 });
  });

  it('sets the nearest time there is for one that no file system has', async () => {
    const far = '9007199254740991';
    await extract([
      [
        { name: 'before', pax: { mtime: `-${far}.5` } },
        { name: 'after', pax: { mtime: far } },
        { name: 'folder/', mtime: -(2 ** 53) + 1 },
        { name: 'l', type: '2', linkname: 'before', pax: { mtime: `-${far}` } },
        { name: 'other', data: 'x', mtime: 7 },
      ],
    ]);
    const times = await Promise.all(
      ['before', 'after', 'folder', 'l', 'other'].map(
        async (name) => (await fs.lstat(join(folder, 'out', name))).mtimeMs,
      ),
    );
    expect(times.map((time) => Math.sign(time - 7000))).to.deep.equal([-1, 1, -1, -1, 0]);
  });

  it('sets times before 1970', async () => {
    await extract([
      [
        { name: 'f', mtime: -86_400 },
        { name: 'fraction', pax: { mtime: '-1.25' } },
        { name: 'l', type: '2', linkname: 'f', mtime: -5 },
      ],
    ]);
    const times = ['f', 'fraction', 'l'].map(
      async (name) => (await fs.lstat(join(folder, 'out', name))).mtimeMs,
    );
    expect(await Promise.all(times)).to.deep.equal([-86_400_000, -1250, -5000]);
  });

  it('restores sparse files with their holes', async () => {
    const pax = { 'GNU.sparse.size': '1000000', 'GNU.sparse.map': '5,3,900000,4' };
    await extract([[{ name: 's', data: 'abcdefg', pax }]]);
    const found = await fs.readFile(join(folder, 'out/s'));
    const wanted = Buffer.alloc(1_000_000);
    wanted.write('abc', 5);
    wanted.write('defg', 900_000);
    expect(found.equals(wanted)).to.equal(true);
    expect((await fs.stat(join(folder, 'out/s'))).blocks * 512).to.be.lessThan(100_000);
  });

  it('writes nothing outside, whatever the names and links', async () => {
    const victim = join(folder, 'victim');
    await fs.mkdir(victim);
    const up = '../'.repeat(20);
    await extract([
      [
        { name: 'out', type: '2', linkname: victim },
        { name: 'dot', type: '2', linkname: '../victim' },
        { name: 'abs', type: '2', linkname: `${up}${victim}` },
      ],
      [
        { name: 'out/planted', data: 'x' },
        { name: 'dot/planted', data: 'x' },
        { name: 'abs/planted', data: 'x' },
        { name: `${up}${victim}/planted`, data: 'x' },
        { name: '../victim/planted', data: 'x' },
        { name: 'hard', type: '1', linkname: `../victim` },
        { name: `a/..//../victim/planted`, data: 'x' },
      ],
    ]);
    expect(await fs.readdir(victim)).to.deep.equal([]);
    expect((await fs.readdir(folder)).sort()).to.deep.equal(['out', 'victim']);
  });

  it('wants a folder that is new or empty', async () => {
    await fs.writeFile(join(folder, 'mine'), 'keep');
    let code = '';
    await extract([['a']], folder).catch(
      (error: unknown) => (code = isLayercacheError(error) ? error.code : ''),
    );
    expect(code).to.equal('USAGE');
    expect(await fs.readdir(folder)).to.deep.equal(['mine']);
  });

  it('leaves nothing behind when it fails', async () => {
    const files = [layerOf(archive({ name: 'd/' }, { name: 'd/f', data: Buffer.alloc(3000) }))];
    const failing = async (openTar: () => AsyncIterable<Uint8Array>): Promise<unknown> => {
      try {
        await extractView(MergedView.of(files), join(folder, 'out'), { openTar });
      } catch (error) {
        return error;
      }
      return undefined;
    };
    const cut = await failing(() => stream(archive({ name: 'd/' })));
    expect(isLayercacheError(cut, 'ARCHIVE_INVALID')).to.equal(true);
    expect(await fs.readdir(join(folder, 'out'))).to.deep.equal([]);
    const broken = await failing(async function* () {
      yield await Promise.resolve(Buffer.alloc(600));
      throw new Error('gone');
    });
    expect((broken as Error).message).to.equal('gone');
    expect(await fs.readdir(join(folder, 'out'))).to.deep.equal([]);
  });

  it('reports what the file system refuses as STORAGE, and an abort as ABORTED', async () => {
    const codeOf = async (promise: Promise<unknown>): Promise<string> =>
      promise.then(
        () => 'none',
        (error: unknown) => (isLayercacheError(error) ? error.code : String(error)),
      );
    expect(
      await codeOf(
        extract(
          [['n'.repeat(300)]].map((names) => names.map((name) => ({ name: 'x', pax: { path: name } }))),
        ),
      ),
    ).to.equal('STORAGE');
    await fs.writeFile(join(folder, 'file'), '');
    expect(await codeOf(extract([['a']], join(folder, 'file/below')))).to.equal('STORAGE');
    expect(await codeOf(extract([['a']], join(folder, 'other'), AbortSignal.abort()))).to.equal('ABORTED');
  });
});
