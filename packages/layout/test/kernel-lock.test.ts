import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { OciLayout, nodeFileSystem, type FileSystem } from '../src/index.js';
import { callsByKoffi } from '../src/kernel-lock.js';
import { blobOf, failure, inScratch, layerPair } from './scratch.js';

const modes = ['shared', 'exclusive'] as const;

describe('the kernel lock', () => {
  it('is the same, whichever package takes it', async () => {
    await inScratch((dir) => {
      const path = join(dir, 'file');
      writeFileSync(path, '');
      const [one, two] = [openSync(path, 'r+'), openSync(path, 'r+')];
      const koffi = callsByKoffi();
      for (const [mine, theirs] of [
        [koffi, nodeFileSystem],
        [nodeFileSystem, koffi],
        [koffi, koffi],
      ] as const) {
        for (const first of modes) {
          for (const second of modes) {
            expect(mine.tryLock(one, first)).to.equal(true);
            expect(theirs.tryLock(two, second)).to.equal(first === 'shared' && second === 'shared');
            mine.unlock(one);
            expect(theirs.tryLock(two, 'exclusive')).to.equal(true);
            theirs.unlock(two);
          }
        }
      }
      closeSync(one);
      expect(() => koffi.tryLock(one, 'shared'))
        .to.throw()
        .with.property('code', 'EBADF');
      closeSync(two);
      return Promise.resolve();
    });
  });

  it('is taken by the second package, in another process, where the first has no binary', async () => {
    await inScratch(async (dir) => {
      await using layout = await OciLayout.open(dir);
      const hook = join(dir, '..', `no-addon-${process.pid}.cjs`);
      writeFileSync(
        hook,
        `const Module = require('node:module');
        const load = Module._load;
        Module._load = function (name, ...rest) {
          if (name === 'fs-native-extensions') throw new Error('no binary');
          return load.call(this, name, ...rest);
        };`,
      );
      const program = `
        import { OciLayout } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)};
        const layout = await OciLayout.open(${JSON.stringify(dir)}, { create: false });
        await layout.put(${JSON.stringify(layerPair(1).gzip)});
        await layout.close();`;
      execFileSync(process.execPath, ['--require', hook, '--input-type=module', '--eval', program]);
      nodeFileSystem.unlinkSync(hook);
      expect(layout.lookup(layerPair(1).gzip.digest)).to.have.length(1);
    });
  });

  it('can be asked about by those who may not write the file', async () => {
    await inScratch((dir) => {
      const path = join(dir, 'file');
      writeFileSync(path, '');
      const [holder, asking] = [openSync(path, 'r+'), openSync(path, 'r')];
      for (const mode of modes) {
        expect(nodeFileSystem.isLocked(asking)).to.equal(false);
        nodeFileSystem.tryLock(holder, mode);
        expect(nodeFileSystem.isLocked(asking)).to.equal(true);
        nodeFileSystem.unlock(holder);
      }
      for (const fd of [holder, asking]) closeSync(fd);
      return Promise.resolve();
    });
  });

  it('of a blob that another user wrote is respected, and the blob removed when there is none', async () => {
    await inScratch(async (dir) => {
      const bytes = Buffer.from('of another user');
      const path = join(dir, 'blobs/sha256', digestOf(bytes).slice(7));
      const files: FileSystem = {
        ...nodeFileSystem,
        openSync: (name, flags, mode) => {
          if (name !== path || flags === 'r') return nodeFileSystem.openSync(name, flags, mode);
          throw Object.assign(new Error('not yours'), { code: 'EACCES', syscall: 'open' });
        },
      };
      await using owner = await OciLayout.open(dir);
      await using layout = await OciLayout.open(dir, { files });
      await owner.write(bytes);
      await layout.remove(digestOf(bytes));
      expect(existsSync(path)).to.equal(true);
      await owner.put(blobOf(bytes));
      await layout.remove(digestOf(bytes));
      expect(existsSync(path)).to.equal(false);
    });
  });

  it('is not needed to read; where it cannot be had, nothing is written, and the error says why', async () => {
    await inScratch(async (dir) => {
      const made = await OciLayout.open(dir);
      await made.put(layerPair(1).gzip);
      await made.close();
      const refuse = (): never => {
        throw Object.assign(new Error('no lock'), { code: 'ENOLCK', syscall: 'lock' });
      };
      const lockless: FileSystem = { ...nodeFileSystem, tryLock: refuse, unlock: refuse };
      const layout = await OciLayout.open(dir, { files: lockless });
      expect(layout.lookup(layerPair(1).gzip.digest)).to.have.length(1);
      const error = await failure(layout.put(layerPair(2).gzip));
      expect(error).to.include({ code: 'STORAGE' });
      expect(error.message).to.contain('no lock can be taken');
      await layout.close();
    });
  });
});
