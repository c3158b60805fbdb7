import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { OciLayout, SideFolder } from '../src/index.js';
import { failure, inLayout, inScratch } from './scratch.js';

const WORKER = fileURLToPath(new URL('./side-folder-worker.js', import.meta.url));

describe('a folder of the side state', () => {
  it('shows each change what the one before it wrote', async () => {
    await inScratch(async (dir) => {
      const folder = new SideFolder(dir, 'things');
      expect(folder.read('one')).to.equal(undefined);
      await Promise.all(
        ['a', 'b', 'c'].map((letter) =>
          folder.update('one', (before) => Buffer.from(`${Buffer.from(before ?? '').toString()}${letter}`)),
        ),
      );
      expect(Buffer.from(folder.read('one')!).toString()).to.equal('abc');
      await folder.update('one', () => undefined);
      expect(Buffer.from(folder.read('one')!).toString()).to.equal('abc');
      expect(readdirSync(join(dir, '.layercache', 'ingest'))).to.deep.equal([]);
      folder.close();
    });
  });

  it('loses no change of several processes', async () => {
    await inScratch(async (dir) => {
      const workers = [1, 2, 3].map(() =>
        spawn(process.execPath, [WORKER, dir, '40'], { stdio: ['ignore', 'inherit', 'inherit'] }),
      );
      const codes = await Promise.all(
        workers.map(async (worker) => ((await once(worker, 'exit')) as [number])[0]),
      );
      expect(codes).to.deep.equal([0, 0, 0]);
      expect(Buffer.from(new SideFolder(dir, 'counts').read('count')!).toString()).to.equal('120');
    });
  });

  it('goes on when the side state is deleted under it', async () => {
    await inLayout(async (layout, dir) => {
      const folder = new SideFolder(dir, 'things');
      await folder.update('one', () => Buffer.from('before'));
      rmSync(join(dir, '.layercache'), { recursive: true });
      expect(folder.read('one')).to.equal(undefined);
      await folder.update('one', (before) => Buffer.from(before === undefined ? 'new' : 'old'));
      expect(Buffer.from(folder.read('one')!).toString()).to.equal('new');
      folder.close();
      expect(layout).to.be.instanceOf(OciLayout);
    });
  });

  it('has nothing under a name whose file is too large, or no file', async () => {
    await inScratch(async (dir) => {
      const folder = new SideFolder(dir, 'things', { maxSize: 100 });
      mkdirSync(join(dir, '.layercache', 'things', 'folder'), { recursive: true });
      writeFileSync(join(dir, '.layercache', 'things', 'large'), Buffer.alloc(101));
      expect(folder.read('large')).to.equal(undefined);
      expect(folder.read('folder')).to.equal(undefined);
      expect(await failure(folder.update('folder', () => Buffer.from('x')))).to.have.property(
        'code',
        'STORAGE',
      );
      expect(readdirSync(join(dir, '.layercache', 'ingest'))).to.deep.equal([]);
      folder.close();
    });
  });

  it('takes no name that could lead out of it', async () => {
    await inScratch(async (dir) => {
      expect(() => new SideFolder(dir, '../x')).to.throw(TypeError, 'no name');
      const folder = new SideFolder(dir, 'things');
      for (const name of ['..', 'a/b', '.lock', '']) {
        expect(() => folder.read(name)).to.throw(TypeError, 'no name');
        expect(await failure(folder.update(name, () => undefined))).to.be.instanceOf(TypeError);
      }
    });
  });
});
