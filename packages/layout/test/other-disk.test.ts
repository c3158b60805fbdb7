import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { OciLayout, nodeFileSystem, verify, type FileFacts, type FileSystem } from '../src/index.js';
import { blobOf, inScratch, manifestNamed } from './scratch.js';

/** Each folder named here, with all below it, is a disk of its own: no file is renamed from one to another. */
function disks(dir: string, ...folders: string[]): FileSystem {
  const diskOf = (path: string): number =>
    folders.findIndex((folder) => !relative(join(dir, folder), path).startsWith('..'));
  const onDisk = (facts: FileFacts, path: string): FileFacts =>
    Object.assign(Object.create(facts) as FileFacts, { dev: BigInt(diskOf(path) + 100) });
  return {
    ...nodeFileSystem,
    statSync: (path) => onDisk(nodeFileSystem.statSync(path), path),
    rename: (from, to) =>
      diskOf(from) === diskOf(to)
        ? nodeFileSystem.rename(from, to)
        : Promise.reject(Object.assign(new Error('cross-device link'), { code: 'EXDEV', syscall: 'rename' })),
  };
}

describe('a layout on several disks', () => {
  for (const folders of [['blobs'], ['blobs/sha256'], ['.layercache'], ['.layercache', 'blobs']]) {
    it(`with ${folders.join(' and ')} on another one works as any other`, async () => {
      await inScratch(async (dir) => {
        const bytes = Buffer.alloc(1_000_000, 5);
        const other = Buffer.from('other');
        const files = disks(dir, ...folders);
        const layout = await OciLayout.open(dir, { files });
        await layout.write(bytes, { digest: digestOf(bytes), size: bytes.length });
        await layout.ingest({ digest: digestOf(other) }, () =>
          Promise.resolve({
            offset: 0,
            body: (async function* () {
              yield other;
              await Promise.resolve();
            })(),
          }),
        );
        // It is pinned until it has an entry, as everywhere.
        await using another = await OciLayout.open(dir, { files });
        expect(await another.removeOrphans({ grace: 0 })).to.deep.equal([]);
        await layout.put([blobOf(bytes), blobOf(other)]);
        await layout.sync();
        expect(await layout.readBytes(digestOf(bytes))).to.deep.equal(bytes);
        expect((await verify(layout)).problems).to.deep.equal([]);
        expect(readdirSync(join(dir, 'blobs/sha256'))).to.have.members(
          [bytes, other].map((one) => digestOf(one).slice(7)),
        );
        // What a dead process left beside the blobs.
        writeFileSync(join(dir, 'blobs/sha256/.layercache-0.tmp'), 'x');
        await layout.close();
        await (await OciLayout.open(dir, { files })).close();
        expect(readdirSync(join(dir, 'blobs/sha256'))).to.have.length(2);
        expect(readdirSync(join(dir, '.layercache/ingest'))).to.deep.equal([]);
      });
    });
  }

  it('whose index.json is a link writes the file that it leads to', async () => {
    await inScratch(async (dir) => {
      const [cache, elsewhere] = [join(dir, 'cache'), join(dir, 'elsewhere')];
      const made = await OciLayout.open(cache);
      await made.close();
      mkdirSync(elsewhere);
      renameSync(join(cache, 'index.json'), join(elsewhere, 'real.json'));
      symlinkSync('../elsewhere/real.json', join(cache, 'index.json'));
      const layout = await OciLayout.open(cache, { files: disks(dir, 'elsewhere') });
      await layout.put(manifestNamed('app:1'));
      await layout.close();
      expect(lstatSync(join(cache, 'index.json')).isSymbolicLink()).to.equal(true);
      expect(readFileSync(join(elsewhere, 'real.json'), 'utf8')).to.contain('app:1');
      expect(readdirSync(dirname(join(elsewhere, 'real.json')))).to.deep.equal(['real.json']);
    });
  });
});
