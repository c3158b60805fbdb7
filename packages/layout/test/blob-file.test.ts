import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Digester, digestOf } from '@layercache/oci';
import { BlobFile } from '../src/blob-file.js';
import { nodeFileSystem, type FileSystem } from '../src/file-system.js';
import { failure } from './scratch.js';

const MIB = 1024 * 1024;

describe('the file of a blob', () => {
  let dir: string;
  let path: string;
  let fd: number;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'layercache-blob-file-'));
    path = join(dir, 'file');
    fd = openSync(path, 'w+');
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });

  for (const [name, chunk, size] of [
    ['pieces that divide no batch', 65_521, undefined],
    ['pieces larger than a batch', 3 * MIB + 1, undefined],
    ['a size that is known', 64 * 1024, 5 * MIB + 3],
    ['more than was announced', 1000, 7],
  ] as const) {
    it(`holds and hashes all of ${name}, from a source that reuses its buffer`, async () => {
      const bytes = randomBytes(5 * MIB + 3);
      const digester = new Digester();
      const file = new BlobFile(nodeFileSystem, fd, digester, size);
      const reused = Buffer.alloc(chunk);
      for (let at = 0; at < bytes.length; at += chunk) {
        await file.append(reused.subarray(0, bytes.copy(reused, 0, at, at + chunk)));
        reused.fill(0);
      }
      await file.flush();
      expect(readFileSync(path).equals(bytes)).to.equal(true);
      expect(digester.digest()).to.equal(digestOf(bytes));
    });
  }

  it('goes on after what the file holds', async () => {
    const bytes = randomBytes(2 * MIB);
    nodeFileSystem.writeSync(fd, bytes.subarray(0, 1000), 0);
    const digester = new Digester();
    digester.update(bytes.subarray(0, 1000));
    const file = new BlobFile(nodeFileSystem, fd, digester, bytes.length);
    await file.append(bytes.subarray(1000));
    await file.flush();
    expect(readFileSync(path).equals(bytes)).to.equal(true);
  });

  it('starts to sync large files early, and does not mind when that fails', async () => {
    let syncs = 0;
    const files: FileSystem = {
      ...nodeFileSystem,
      fdatasync: () => {
        syncs += 1;
        return Promise.reject(new Error('EIO'));
      },
    };
    const file = new BlobFile(files, fd, new Digester());
    const chunk = randomBytes(MIB);
    for (let count = 0; count < 70; count++) await file.append(chunk);
    await file.flush();
    expect(syncs).to.equal(2);
    expect(Number(nodeFileSystem.fstatSync(fd).size)).to.equal(70 * MIB);
  });

  it('tells of a write that failed, and holds no gap', async () => {
    const bytes = randomBytes(4 * MIB);
    let writes = 0;
    const files: FileSystem = {
      ...nodeFileSystem,
      write: async (...args) => {
        writes += 1;
        if (writes === 3) throw new Error('no more');
        return nodeFileSystem.write(...args);
      },
    };
    const file = new BlobFile(files, fd, new Digester());
    const append = async (): Promise<void> => {
      for (let at = 0; at < bytes.length; at += 65_536) await file.append(bytes.subarray(at, at + 65_536));
    };
    expect((await failure(append())).message).to.equal('no more');
    expect((await failure(file.flush())).message).to.equal('no more');
    expect(writes).to.equal(3);
    const held = readFileSync(path);
    expect(held.length).to.equal(MIB);
    expect(held.equals(bytes.subarray(0, MIB))).to.equal(true);
  });
});
