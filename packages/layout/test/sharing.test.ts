import {
  appendFileSync,
  utimesSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  openSync,
  closeSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import {
  Annotation,
  MediaType,
  digestOf,
  refName,
  silentLogger,
  type Descriptor,
  type Logger,
} from '@layercache/oci';
import { OciLayout, nodeFileSystem, verify, type LayoutExtension } from '../src/index.js';
import { decodeChanges, frameRecord } from '../src/journal-format.js';
import { LayoutLock } from '../src/lock.js';
import {
  blobOf,
  collect,
  digestNumber,
  failure,
  inLayout,
  inScratch,
  layerPair,
  manifestNamed,
} from './scratch.js';

interface Index {
  manifests: Descriptor[];
}

const readIndex = (dir: string): Index => JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')) as Index;
const writeIndex = (dir: string, manifests: readonly Descriptor[]): void => {
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
};
/** An outside edit is looked for every 50 ms. */
const aMoment = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 60));

describe('several handles on one layout', () => {
  it('see what any of them put, at once, and through any number of commits', async () => {
    await inLayout(async (a, dir) => {
      await using b = await OciLayout.open(dir);
      for (let n = 0; n < 30; n++) {
        const { gzip, tar } = layerPair(n);
        expect(b.lookup(tar.digest)).to.deep.equal([]);
        await a.put(gzip);
        expect(b.lookup(tar.digest)).to.have.length(1);
        await b.put(tar);
        expect(a.lookup(tar.digest)).to.have.length(2);
        if (n % 7 === 0) await a.sync();
        if (n % 5 === 0) await b.sync();
      }
      await b.put(manifestNamed('app'));
      expect(a.lookupTag('app')?.descriptor).to.deep.equal(manifestNamed('app'));
      await a.untag('app');
      expect(b.lookupTag('app')).to.equal(undefined);
      await a.remove(layerPair(3).gzip.digest);
      expect(b.lookup(layerPair(3).gzip.digest)).to.deep.equal([]);
      expect([...a.entries()]).to.deep.equal([...b.entries()]);
    });
  });

  it('find what another put and never committed', async () => {
    await inScratch(async (dir) => {
      const lost = await OciLayout.open(dir);
      await lost.put(layerPair(1).gzip, { proven: true });
      // As after SIGKILL: `lost` is never closed.
      await using found = await OciLayout.open(dir);
      expect(found.lookup(layerPair(1).tar.digest)).to.deep.equal([
        { descriptor: layerPair(1).gzip, proven: true },
      ]);
    });
  });

  it('remember what is proven from one commit to the next', async () => {
    await inScratch(async (dir) => {
      for (const n of [1, 2]) {
        await using layout = await OciLayout.open(dir);
        await layout.put(layerPair(n).gzip, { proven: true });
      }
      await using layout = await OciLayout.open(dir);
      expect([...layout.entries()].map((entry) => entry.proven)).to.deep.equal([true, true]);
      expect(readFileSync(join(dir, 'index.json'), 'utf8')).not.to.contain('proven');
    });
  });

  it('iterate over what was there when they started, whatever is committed meanwhile', async () => {
    await inLayout(async (layout) => {
      await layout.put([1, 2, 3].map((n) => layerPair(n).gzip));
      await layout.sync();
      let count = 0;
      for (const { descriptor } of layout.entries()) {
        count++;
        await layout.remove(descriptor.digest);
      }
      expect(count).to.equal(3);
      expect([...layout.entries()]).to.deep.equal([]);
    });
  });

  it('commit by themselves when the journal is as large as the layout', async () => {
    await inLayout(async (layout, dir) => {
      const note = 'x'.repeat(1_000_000);
      for (let n = 0; n < 10; n++) {
        await layout.put({ ...layerPair(n).gzip, annotations: { note } });
      }
      for (let tries = 0; readIndex(dir).manifests.length === 0; tries++) {
        expect(tries).to.be.lessThan(200);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      expect([...layout.entries()]).to.have.length(10);
    });
  });

  it('write nothing for a put that changes nothing', async () => {
    await inLayout(async (layout, dir) => {
      const { gzip } = layerPair(1);
      await layout.put([gzip, manifestNamed('app')], { proven: true });
      await layout.sync();
      const before = statSync(join(dir, 'index.json')).ino;
      const again = await OciLayout.open(dir);
      await again.put([manifestNamed('app'), gzip]);
      await again.put({ mediaType: gzip.mediaType, digest: gzip.digest, size: gzip.size });
      await again.close();
      expect(statSync(join(dir, 'index.json')).ino).to.equal(before);
      expect(statSync(join(dir, '.layercache/journal')).size).to.equal(24);
      await layout.put([manifestNamed('app', 'other'), manifestNamed('app')]);
      expect(layout.lookupTag('app')?.descriptor).to.deep.equal(manifestNamed('app'));
      expect(layout.lookup(digestNumber('other'))).to.have.length(1);
    });
  });

  it('put in parallel', async () => {
    await inLayout(async (layout, dir) => {
      await using other = await OciLayout.open(dir, { durability: 'fsync' });
      const puts = Array.from({ length: 200 }, (_, n) =>
        (n % 2 === 0 ? layout : other).put(layerPair(n).gzip),
      );
      await Promise.all([...puts, layout.sync(), other.sync(), layout.remove(digestNumber('nothing'))]);
      for (let n = 0; n < 200; n++) expect(layout.lookup(layerPair(n).tar.digest)).to.have.length(1);
    });
  });
});

describe('the lock', () => {
  it('is waited for so long, and the error says who holds it', async () => {
    await inLayout(async (layout, dir) => {
      const path = join(dir, '.layercache/lock');
      const holder = new LayoutLock(nodeFileSystem, path, 1000);
      await using waiting = await OciLayout.open(dir, { lockTimeout: 30 });
      await holder.exclusive('a long commit', async () => {
        const error = await failure(waiting.put(layerPair(1).gzip));
        expect(error).to.include({ code: 'LOCK_TIMEOUT' });
        expect(error.message).to.contain(`process ${process.pid} (a long commit)`).and.to.contain('30 ms');
        expect(waiting.lookup(layerPair(1).gzip.digest)).to.deep.equal([]);
      });
      await waiting.put(layerPair(1).gzip);
      holder.close();
      expect(layout.lookup(layerPair(1).gzip.digest)).to.have.length(1);
    });
  });

  it('is waited for as long as its holder makes progress, and a long wait is told of', async () => {
    await inScratch(async (dir) => {
      const told: string[] = [];
      const holder = new LayoutLock(nodeFileSystem, join(dir, 'lock'), 30);
      const waiting = new LayoutLock(nodeFileSystem, join(dir, 'lock'), 1500, (text) => told.push(text));
      const held = holder.exclusive(
        'a long commit',
        () => new Promise((resolve) => setTimeout(resolve, 2600)),
      );
      expect(await waiting.exclusive('another', () => Promise.resolve('got it'))).to.equal('got it');
      expect(told).to.deep.equal([`process ${process.pid} (a long commit)`]);
      await held;
      holder.close();
      waiting.close();
    });
  });

  it('is shared by those who append', async () => {
    await inScratch(async (dir) => {
      const a = new LayoutLock(nodeFileSystem, join(dir, 'x/lock'), 30);
      const b = new LayoutLock(nodeFileSystem, join(dir, 'x/lock'), 30);
      await a.shared(async () => {
        expect(await b.shared(() => 'both')).to.equal('both');
        expect(b.tryShared(() => 'both')).to.equal('both');
        expect(await failure(b.exclusive('', () => Promise.resolve()))).to.include({ code: 'LOCK_TIMEOUT' });
      });
      await a.exclusive('', () => {
        expect(b.tryShared(() => 'both')).to.equal(undefined);
        return Promise.resolve();
      });
      a.close();
      b.close();
    });
  });
});

describe('an index.json that another tool changed', () => {
  it('is taken up at open and while open: names are as the tool left them', async () => {
    await inLayout(async (layout, dir) => {
      await layout.put([layerPair(1).gzip, manifestNamed('old')], { proven: true });
      await layout.sync();
      const { manifests } = readIndex(dir);
      writeIndex(dir, [...manifests.filter((one) => refName(one) !== 'old'), manifestNamed('new')]);
      await aMoment();
      expect(layout.lookupTag('new')?.descriptor).to.deep.equal(manifestNamed('new'));
      expect(layout.lookupTag('old')).to.equal(undefined);
      expect(layout.lookup(layerPair(1).gzip.digest)).to.deep.equal([
        { descriptor: layerPair(1).gzip, proven: true },
      ]);
      await using other = await OciLayout.open(dir);
      expect([...other.entries()]).to.deep.equal([...layout.entries()]);
    });
  });

  it('is merged with the journal, and not overwritten', async () => {
    await inLayout(async (layout, dir) => {
      await layout.put(layerPair(1).gzip);
      writeIndex(dir, [manifestNamed('outside')]);
      await layout.put(layerPair(2).gzip);
      await layout.sync();
      const digests = readIndex(dir).manifests.map((one) => one.digest);
      expect(digests).to.have.members(
        [layerPair(1).gzip, layerPair(2).gzip, manifestNamed('outside')].map((one) => one.digest),
      );
    });
  });

  it('is not rewritten by those who only read', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
      writeIndex(dir, [manifestNamed('app')]);
      const before = readFileSync(join(dir, 'index.json'));
      for (let n = 0; n < 2; n++) {
        await using layout = await OciLayout.open(dir);
        expect(layout.lookupTag('app')).not.to.equal(undefined);
      }
      expect(readFileSync(join(dir, 'index.json')).equals(before)).to.equal(true);
    });
  });

  it('keeps entries that went missing while their blobs are here, and drops the others', async () => {
    await inLayout(async (layout, dir) => {
      const bytes = Buffer.from('a layer');
      await layout.write(bytes);
      await layout.put([blobOf(bytes), layerPair(1).gzip]);
      await layout.sync();
      writeIndex(dir, []);
      await using other = await OciLayout.open(dir);
      expect([...other.entries()].map((entry) => entry.descriptor)).to.deep.equal([blobOf(bytes)]);
      expect(readIndex(dir).manifests).to.deep.equal([blobOf(bytes)]);
    });
  });

  it('stays as it is when it is broken, and nothing of the journal is lost', async () => {
    await inLayout(async (layout, dir) => {
      await layout.put(layerPair(1).gzip);
      writeFileSync(join(dir, 'index.json'), '{"manifests": oops');
      const error = await failure(layout.sync());
      expect(error).to.include({ code: 'LAYOUT_INVALID' });
      expect(readFileSync(join(dir, 'index.json'), 'utf8')).to.equal('{"manifests": oops');
      writeIndex(dir, []);
      await layout.sync();
      expect(readIndex(dir).manifests).to.have.length(1);
    });
  });

  it('is shown to the extension, which says what it brought', async () => {
    const seen: (readonly Descriptor[])[] = [];
    const extension: LayoutExtension = {
      derive: () => Promise.resolve({ put: [], drop: [], unlink: [] }),
      adopt: ({ manifests }) => {
        seen.push(manifests);
        return Promise.resolve(manifests.length === 0 ? [] : [layerPair(9).gzip]);
      },
    };
    await inLayout(
      async (layout, dir) => {
        writeIndex(dir, [manifestNamed('app')]);
        await layout.put(layerPair(1).gzip);
        await layout.sync();
        expect(seen).to.deep.equal([[manifestNamed('app')]]);
        expect(layout.lookup(layerPair(9).tar.digest)).to.have.length(1);
        expect(readIndex(dir).manifests).to.have.length(3);
      },
      { extension },
    );
  });
});

describe('what an extension derives', () => {
  it('is committed with the entries, takes the place of what was derived before, and unlinks what is of no use', async () => {
    const changes: (readonly string[] | undefined)[] = [];
    const extension: LayoutExtension = {
      adopt: () => Promise.resolve([]),
      derive: async (context) => {
        const { entries, changed } = context;
        changes.push(changed && [...changed]);
        const before = entries.find((entry) => refName(entry) === 'derived');
        const rest = entries.filter((entry) => refName(entry) !== 'derived');
        const text = Buffer.from(rest.map((entry) => entry.digest).join('\n'));
        const digest = await context.writeBlob(text);
        expect(await context.readBlob(digest)).to.deep.equal(text);
        const annotations = { [Annotation.refName]: 'derived' };
        const gone = before === undefined || before.digest === digest ? [] : [before.digest];
        return {
          put: [{ mediaType: MediaType.index, digest, size: text.length, annotations }],
          drop: gone,
          unlink: gone,
        };
      },
    };
    await inLayout(
      async (layout, dir) => {
        const [one, two] = [layerPair(1).gzip, layerPair(2).gzip];
        await layout.put(one);
        await layout.sync();
        const first = layout.lookupTag('derived')!.descriptor;
        expect(await collect(layout.read(first.digest))).to.deep.equal(Buffer.from(one.digest));
        await layout.put(two);
        await layout.sync();
        const second = layout.lookupTag('derived')!.descriptor;
        expect(second.digest).not.to.equal(first.digest);
        expect(await layout.dropRetired()).to.equal(true);
        expect(await layout.has(first.digest)).to.equal(false);
        expect(readIndex(dir).manifests.map((entry) => entry.digest)).to.have.members([
          one.digest,
          two.digest,
          second.digest,
        ]);
        expect(changes.at(-1)).to.deep.equal([two.digest]);
      },
      { extension },
    );
  });
});

describe('the side state', () => {
  it('is made again when it is deleted, also under an open handle', async () => {
    await inLayout(async (layout, dir) => {
      await layout.put(layerPair(1).gzip, { proven: true });
      await layout.sync();
      rmSync(join(dir, '.layercache'), { recursive: true });
      expect(layout.lookup(layerPair(1).gzip.digest)).to.have.length(1);
      await layout.put(layerPair(2).gzip);
      await using other = await OciLayout.open(dir);
      await other.put(layerPair(3).gzip);
      expect(layout.lookup(layerPair(3).gzip.digest)).to.have.length(1);
      expect([...other.entries()]).to.have.length(3);
    });
  });

  for (const name of ['map', 'journal']) {
    for (const [what, spoil] of [
      [
        'deleted',
        (path: string) => {
          rmSync(path);
        },
      ],
      [
        'empty',
        (path: string) => {
          truncateSync(path, 0);
        },
      ],
      [
        'cut short',
        (path: string) => {
          truncateSync(path, 10);
        },
      ],
      [
        'full of noise',
        (path: string) => {
          writeFileSync(path, Buffer.alloc(9000, 'noise'));
        },
      ],
    ] as const) {
      it(`is made again when the ${name} is ${what}`, async () => {
        await inScratch(async (dir) => {
          const layout = await OciLayout.open(dir);
          await layout.put(layerPair(1).gzip);
          await layout.close();
          spoil(join(dir, '.layercache', name));
          await using again = await OciLayout.open(dir);
          expect(again.lookup(layerPair(1).tar.digest)).to.have.length(1);
          await again.put(layerPair(2).gzip);
          expect(again.lookup(layerPair(2).tar.digest)).to.have.length(1);
        });
      });
    }
  }

  it('is left aside when a page of the map turns out to be damaged', async () => {
    await inScratch(async (dir) => {
      const layout = await OciLayout.open(dir);
      await layout.put([1, 2, 3].map((n) => layerPair(n).gzip));
      await layout.close();
      const fd = openSync(join(dir, '.layercache/map'), 'r+');
      writeSync(fd, Buffer.alloc(100, 0xff), 0, 100, 4096 + 50);
      closeSync(fd);
      await using again = await OciLayout.open(dir);
      for (const n of [1, 2, 3]) expect(again.lookup(layerPair(n).tar.digest)).to.have.length(1);
      await again.put(layerPair(4).gzip);
      expect([...again.entries()]).to.have.length(4);
    });
  });

  it('skips a torn record of the journal, and takes those after it', async () => {
    await inScratch(async (dir) => {
      const lost = await OciLayout.open(dir);
      await lost.put(layerPair(1).gzip);
      const journal = join(dir, '.layercache/journal');
      await lost.put(layerPair(2).gzip);
      truncateSync(journal, statSync(journal).size - 5);
      await using layout = await OciLayout.open(dir);
      expect(layout.lookup(layerPair(2).gzip.digest)).to.deep.equal([]);
      await layout.put(layerPair(3).gzip);
      for (const n of [1, 3]) expect(layout.lookup(layerPair(n).gzip.digest)).to.have.length(1);
    });
  });

  it('leaves records of a newer version to that version, and goes on without them', async () => {
    await inScratch(async (dir) => {
      const journal = join(dir, '.layercache/journal');
      const unknownRecords = (): number => {
        const bytes = readFileSync(journal);
        return decodeChanges(bytes.subarray(24), bytes.readUInt32LE(16)).unknown.length;
      };
      const first = await OciLayout.open(dir);
      await first.put(layerPair(1).gzip);
      appendFileSync(journal, frameRecord(Buffer.of(0x7f), readFileSync(journal).readUInt32LE(16)));
      const warnings: string[] = [];
      const logger: Logger = { ...silentLogger, warn: (line) => warnings.push(JSON.stringify(line)) };
      const layout = await OciLayout.open(dir, { logger });
      expect(warnings.join()).to.contain('newer version');
      await layout.put(layerPair(2).gzip);
      await layout.sync();
      for (const n of [1, 2]) expect(layout.lookup(layerPair(n).gzip.digest)).to.have.length(1);
      expect(unknownRecords()).to.equal(1);

      const report = await verify(layout, { repair: true });
      expect(report.problems.map(({ step, repaired }) => ({ step, repaired }))).to.deep.equal([
        { step: 'journal', repaired: true },
      ]);
      expect(unknownRecords()).to.equal(0);
      for (const n of [1, 2]) expect(layout.lookup(layerPair(n).gzip.digest)).to.have.length(1);
      await Promise.all([first.close(), layout.close()]);
    });
  });
});

describe('removing', () => {
  it('leaves a blob alone that a writer is about to put an entry for', async () => {
    await inLayout(async (layout, dir) => {
      await using writer = await OciLayout.open(dir);
      const bytes = Buffer.from('shared');
      const { digest } = await layout.write(bytes);
      await layout.put(blobOf(bytes));
      await writer.write(bytes, { digest, size: bytes.length });
      expect(await layout.remove(digest)).to.equal(true);
      expect(await layout.removeOrphans({ grace: 0 })).to.deep.equal([]);
      await writer.put(blobOf(bytes));
      expect(await layout.readBytes(digest)).to.deep.equal(bytes);
      expect(layout.lookup(digest)).to.have.length(1);
      expect(await layout.remove(digest)).to.equal(true);
      expect(await layout.has(digest)).to.equal(false);
    });
  });

  it('takes a blob that another process brought for an entry that was there', async () => {
    await inLayout(async (layout, dir) => {
      await using other = await OciLayout.open(dir);
      const bytes = Buffer.from('comes later');
      await layout.put(blobOf(bytes));
      const body = Readable.from([bytes]);
      await layout.ingest({ digest: digestOf(bytes) }, () => Promise.resolve({ offset: 0, body }));
      expect(await other.remove(digestOf(bytes))).to.equal(true);
      expect(await layout.has(digestOf(bytes))).to.equal(false);
    });
  });

  it('takes many digests at once, and index.json never lists one that is gone', async () => {
    await inLayout(async (layout, dir) => {
      const all = Array.from({ length: 5 }, (_, n) => Buffer.from(`blob ${n}`));
      for (const bytes of all) await layout.write(bytes);
      await layout.put(all.map((bytes) => blobOf(bytes)));
      await layout.sync();
      await layout.remove(all.slice(1).map((bytes) => digestOf(bytes)));
      expect(readIndex(dir).manifests).to.deep.equal([blobOf(all[0]!)]);
      expect(await layout.has(digestOf(all[1]!))).to.equal(false);
    });
  });

  it('of orphans spares the young, the named, and what manifests name', async () => {
    await inLayout(async (layout) => {
      const [named, config, orphan] = ['named', '{"config":1}', 'orphan'].map((text) => Buffer.from(text));
      for (const bytes of [named, config, orphan]) await layout.write(bytes!);
      const manifest = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: MediaType.manifest,
          config: blobOf(config!),
          layers: [],
        }),
      );
      await layout.write(manifest);
      await layout.put([blobOf(named!), blobOf(manifest, MediaType.manifest)]);
      expect(await layout.removeOrphans()).to.deep.equal([]);
      const removed = await layout.removeOrphans({ grace: 0 });
      expect(removed.map((blob) => blob.digest)).to.deep.equal([digestOf(orphan!)]);
      expect(await layout.has(digestOf(config!))).to.equal(true);
    });
  });

  it('of orphans spares one that was old, and is written again now', async () => {
    await inLayout(async (layout) => {
      const bytes = Buffer.from('orphan');
      const { digest, size } = await layout.write(bytes);
      const old = new Date(Date.now() - 3 * 3_600_000);
      utimesSync(layout.blobPath(digest), old, old);
      await layout.write(bytes, { digest, size });
      expect(await layout.removeOrphans()).to.deep.equal([]);
      await layout.put(blobOf(bytes));
      expect(await layout.has(digest)).to.equal(true);
    });
  });

  it('an edit by another tool is seen by a commit, however lately the disk was looked at', async () => {
    await inScratch(async (dir) => {
      const layout = await OciLayout.open(dir);
      const arrived = blobOf(Buffer.from('arrived'));
      const path = join(dir, 'index.json');
      layout.lookup(digestOf('nobody'));
      const index = JSON.parse(readFileSync(path, 'utf8')) as { manifests: Descriptor[] };
      writeFileSync(path, JSON.stringify({ ...index, manifests: [...index.manifests, arrived] }));
      await layout.sync();
      expect(layout.lookup(arrived.digest)).to.have.length(1);
      await layout.close();
    });
  });

  it('a journal that a dead process left behind is committed by the next who closes', async () => {
    await inScratch(async (dir) => {
      const first = await OciLayout.open(dir);
      await first.write(Buffer.from('left behind'));
      await first.put(blobOf(Buffer.from('left behind')));
      // As a SIGKILL leaves it: no commit.
      expect(readFileSync(join(dir, 'index.json'), 'utf8')).not.to.contain(digestOf('left behind'));
      const old = new Date(Date.now() - 3_600_000);
      utimesSync(join(dir, '.layercache', 'journal'), old, old);
      const second = await OciLayout.open(dir);
      await second.close();
      expect(readFileSync(join(dir, 'index.json'), 'utf8')).to.contain(digestOf('left behind'));
      await first.close();
    });
  });
});
