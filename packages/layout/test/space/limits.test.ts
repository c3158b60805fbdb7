import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { OciLayout, nodeFileSystem, type LimitOptions, type OpenOptions } from '../../src/index.js';
import { folderSize } from '../../src/space/folder-size.js';
import { blobOf, failure, inScratch } from '../scratch.js';
import { CountingDisk } from './counting-disk.js';

const MiB = 1024 * 1024;

/** A layout that makes room by evicting what was put first. */
async function openLimited(
  dir: string,
  limits: LimitOptions,
  options: OpenOptions = {},
): Promise<{ layout: OciLayout; put: (bytes: Buffer) => Promise<Descriptor>; evicted: Descriptor[] }> {
  const queue: Descriptor[] = [];
  const evicted: Descriptor[] = [];
  const layout: OciLayout = await OciLayout.open(dir, {
    ...options,
    limits: {
      ...limits,
      makeRoom: async () => {
        const oldest = queue.shift();
        if (oldest === undefined) return 'busy';
        await layout.evict([{ digest: oldest.digest, usedAt: new Date() }]);
        evicted.push(oldest);
        return 'freed';
      },
    },
  });
  const put = async (bytes: Buffer): Promise<Descriptor> => {
    const descriptor = blobOf(bytes, MediaType.layerGzip);
    await layout.ingest(descriptor, () => Promise.resolve({ offset: 0, body: chunks(bytes) }));
    await layout.put(descriptor);
    queue.push(descriptor);
    return descriptor;
  };
  return { layout, put, evicted };
}

async function* chunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 64 * 1024) yield bytes.subarray(at, at + 64 * 1024);
  await Promise.resolve();
}

describe('a limited layout', function () {
  this.timeout(60_000);

  it('of 8 MiB never has a byte more, at no instant of a stream of 40 MiB', async () => {
    await inScratch(async (dir) => {
      const disk = new CountingDisk(dir);
      const { layout, put, evicted } = await openLimited(dir, { maxSize: 8 * MiB }, { files: disk.files });
      let last: Descriptor | undefined;
      for (let sent = 0, n = 0; sent < 40 * MiB; n++) {
        const bytes = randomBytes(100_000 + ((n * 7919) % 13) * 90_000);
        last = await put(bytes);
        sent += bytes.length;
        if (n % 7 === 0) await layout.sync();
        expect(await layout.has(last.digest, last.size)).to.equal(true);
      }
      await layout.close();
      expect(evicted.length).to.be.greaterThan(20);
      expect(disk.operations).to.be.greaterThan(500);
      expect(disk.most).to.be.at.most(8 * MiB);
      expect(disk.most, 'the limit is used').to.be.greaterThan(7 * MiB);
    });
  });

  it('keeps the limit with blobs whose size nobody knows, several at a time', async () => {
    await inScratch(async (dir) => {
      const disk = new CountingDisk(dir);
      const { layout } = await openLimited(dir, { maxSize: 8 * MiB }, { files: disk.files });
      const bytes = Array.from({ length: 4 }, () => randomBytes(1.2 * MiB));
      const written = await Promise.all(bytes.map((each) => layout.write(chunks(each))));
      expect(written.map(({ digest }) => digest)).to.deep.equal(bytes.map((each) => digestOf(each)));
      expect((await failure(layout.write(chunks(randomBytes(6 * MiB))))).code).to.equal('CACHE_FULL');
      expect(disk.most).to.be.at.most(8 * MiB);
      await layout.close();
      expect(layout.temporaryFiles()).to.deep.equal([]);
    });
  });

  it('refuses what can never fit before a byte is asked for, and evicts nothing for it', async () => {
    await inScratch(async (dir) => {
      const { layout, put, evicted } = await openLimited(dir, { maxSize: MiB });
      await put(randomBytes(1000));
      let asked = false;
      const large = randomBytes(MiB + 1);
      const error = await failure(
        layout.ingest(blobOf(large), () => {
          asked = true;
          return Promise.resolve({ offset: 0, body: chunks(large) });
        }),
      );
      expect(error.code).to.equal('CACHE_FULL');
      expect(asked).to.equal(false);
      expect(evicted).to.deep.equal([]);
      await layout.close();
    });
  });

  it('waits for room that others are about to give back', async () => {
    await inScratch(async (dir) => {
      const { layout, put } = await openLimited(dir, { maxSize: 2 * MiB });
      const sizes = Array.from({ length: 8 }, () => randomBytes(0.7 * MiB));
      for (const one of await Promise.all(sizes.map(put))) expect(one.size).to.equal(Math.floor(0.7 * MiB));
      await layout.close();
    });
  });

  it('that is full when it is opened has not a byte more either', async () => {
    await inScratch(async (dir) => {
      const first = await openLimited(dir, { maxSize: 4 * MiB });
      const full: Descriptor[] = [];
      for (let n = 0; n < 60; n++) full.push(await first.put(randomBytes(100_000)));
      await first.layout.close();
      const disk = new CountingDisk(dir);
      let next = 0;
      const layout: OciLayout = await OciLayout.open(dir, {
        files: disk.files,
        limits: {
          maxSize: 4 * MiB,
          makeRoom: async () => {
            const gone = await layout.evict(
              full.slice(next, ++next).map(({ digest }) => ({ digest, usedAt: new Date() })),
            );
            return gone.length > 0 || next < full.length ? 'freed' : 'busy';
          },
        },
      });
      const large = randomBytes(MiB);
      await layout.write(large);
      await layout.put(blobOf(large));
      await layout.close();
      expect(disk.most).to.be.at.most(4 * MiB);
    });
  });

  it('counts what is there when it is opened, exactly', async () => {
    await inScratch(async (dir) => {
      const first = await OciLayout.open(dir);
      await first.write(randomBytes(50_000));
      await first.close();
      const layout = await OciLayout.open(dir, { limits: { maxSize: 10 * MiB } });
      expect(await layout.spaceTaken()).to.equal(folderSize(nodeFileSystem, dir));
      await layout.close();
    });
  });

  it('never has more entries than it may have, nor loses the last', async () => {
    await inScratch(async (dir) => {
      const { layout, put, evicted } = await openLimited(dir, { maxEntries: 5 });
      for (let n = 0; n < 12; n++) {
        await put(randomBytes(100));
        expect([...layout.entries()].length).to.be.at.most(5);
      }
      expect(evicted).to.have.length(7);
      await layout.close();
    });
  });

  it('counts right when two handles put, commit and evict at the same time', async () => {
    await inScratch(async (dir) => {
      const handles = [
        await openLimited(dir, { maxSize: 4 * MiB }),
        await openLimited(dir, { maxSize: 4 * MiB }),
      ];
      await Promise.all(
        handles.map(async ({ layout, put }) => {
          for (let n = 0; n < 25; n++) {
            await put(randomBytes(150_000));
            await layout.sync();
          }
        }),
      );
      const [one, two] = handles;
      await one!.layout.close();
      const taken = (await two!.layout.spaceTaken())!;
      const inReserve = taken - folderSize(nodeFileSystem, dir);
      expect(inReserve, 'what one commit needs').to.be.within(0, 200_000);
      await two!.layout.close();
    });
  });

  it('counts what a handle without limits writes and removes', async () => {
    await inScratch(async (dir) => {
      const { layout } = await openLimited(dir, { maxSize: 4 * MiB });
      const before = (await layout.spaceTaken())!;
      await using other = await OciLayout.open(dir);
      const bytes = randomBytes(MiB);
      await other.write(bytes);
      await other.put(blobOf(bytes));
      expect((await layout.spaceTaken())! - before).to.be.greaterThan(MiB);
      await other.remove(digestOf(bytes));
      expect((await layout.spaceTaken())! - before).to.be.lessThan(200_000);
      await layout.close();
    });
  });

  it('reads where nothing can be written', async () => {
    await inScratch(async (dir) => {
      const bytes = randomBytes(1000);
      await using first = await OciLayout.open(dir);
      await first.write(bytes);
      await first.put(blobOf(bytes));
      await first.close();
      const files = {
        ...nodeFileSystem,
        mkdirSync: () => {
          throw Object.assign(new Error('read-only'), { code: 'EROFS', syscall: 'mkdir' });
        },
      };
      await using layout = await OciLayout.open(dir, { files, limits: { maxSize: MiB } });
      expect(await layout.readBytes(digestOf(bytes))).to.deep.equal(bytes);
    });
  });

  it('leaves as much of the disk free as it is told', async () => {
    await inScratch(async (dir) => {
      let free = 3 * MiB;
      const files = { ...nodeFileSystem, freeSpaceSync: () => free };
      const { layout, put, evicted } = await openLimited(dir, { minFree: 2 * MiB }, { files });
      await put(randomBytes(MiB / 2));
      expect(evicted).to.deep.equal([]);
      free = 2.2 * MiB;
      expect((await failure(put(randomBytes(MiB / 2)))).code).to.equal('CACHE_FULL');
      expect(evicted).to.have.length(1);
      await layout.close();
    });
  });

  it('is not limited by what a dead process had taken', async () => {
    await inScratch(async (dir) => {
      const a = await openLimited(dir, { maxSize: 2 * MiB });
      // Opened and never closed: its locks go with its files.
      const open = new Set<number>();
      const files = {
        ...nodeFileSystem,
        openSync: (path: string, flags: string | number, mode?: number) => {
          const fd = nodeFileSystem.openSync(path, flags, mode);
          open.add(fd);
          return fd;
        },
        closeSync: (fd: number) => {
          open.delete(fd);
          nodeFileSystem.closeSync(fd);
        },
      };
      const dead = await openLimited(dir, { maxSize: 2 * MiB }, { files, lockTimeout: 100 });
      const stuck = dead.layout.write(
        (async function* () {
          yield Buffer.alloc(10);
          await new Promise(() => undefined);
        })(),
        { size: 1.5 * MiB },
      );
      void stuck.catch(() => undefined);
      while ((await a.layout.spaceTaken())! < 1.5 * MiB)
        await new Promise((resolve) => setTimeout(resolve, 1));
      for (const fd of open) nodeFileSystem.closeSync(fd);
      await a.put(randomBytes(MiB));
      await a.layout.close();
    });
  });
});
