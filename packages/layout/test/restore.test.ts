import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  Annotation,
  MediaType,
  isLayercacheError,
  refName,
  silentLogger,
  type Descriptor,
} from '@layercache/oci';
import { OciLayout, verify, type LayoutExtension } from '../src/index.js';
import { digestNumber, failure, inScratch, layerPair, manifestNamed } from './scratch.js';

/** Fills a layout: committed entries, and one that only the journal has. */
async function fill(dir: string, extension?: LayoutExtension): Promise<void> {
  const layout = await OciLayout.open(dir, extension === undefined ? {} : { extension });
  await layout.put([manifestNamed('app:1'), layerPair(1).gzip], { proven: true });
  await layout.sync();
  await layout.put(manifestNamed('app:2'));
  // As a killed process leaves it: the journal is not committed.
  closeSync(openSync(join(dir, '.layercache/journal'), 'r'));
}

const index = (dir: string): string => join(dir, 'index.json');
const namesOf = (layout: OciLayout): string[] => Array.from(layout.tags(), ([name]) => name);
/** Nobody is writing it any more. */
function age(path: string): void {
  utimesSync(path, new Date(), new Date(Date.now() - 60_000));
}

describe('an index.json that is lost', () => {
  const losses: Record<string, (path: string) => void> = {
    empty: (path) => {
      truncateSync(path, 0);
    },
    torn: (path) => {
      truncateSync(path, statSync(path).size >> 1);
    },
    'of zeros': (path) => {
      writeFileSync(path, Buffer.alloc(statSync(path).size));
    },
    'no object': (path) => {
      writeFileSync(path, '[]');
    },
    deleted: (path) => {
      unlinkSync(path);
    },
  };
  for (const [what, lose] of Object.entries(losses)) {
    it(`because it is ${what} comes back, with all entries, names and proofs, and is told of`, async () => {
      await inScratch(async (dir) => {
        await fill(dir);
        lose(index(dir));
        if (existsSync(index(dir))) {
          age(index(dir));
          const broken = readFileSync(index(dir));
          expect(await failure(OciLayout.open(dir))).to.include({ code: 'LAYOUT_INVALID' });
          expect(readFileSync(index(dir))).to.deep.equal(broken);
        }
        const layout = await OciLayout.open(dir, { repair: true });
        const report = await verify(layout, { repair: true });
        expect(report.problems).to.have.length(1);
        expect(report.problems[0]).to.include({ step: 'layout', repaired: true });
        expect(report.problems[0]!.message).to.contain('index.json');
        expect(namesOf(layout)).to.have.members(['app:1', 'app:2']);
        expect(layout.lookup(layerPair(1).gzip.digest)[0]).to.deep.equal({
          descriptor: layerPair(1).gzip,
          proven: true,
        });
        await layout.close();
        await using again = await OciLayout.open(dir);
        expect(namesOf(again)).to.have.members(['app:1', 'app:2']);
        expect(again.restored).to.deep.equal([]);
      });
    });
  }

  it('because it was deleted comes back without being asked for, and a warning says so', async () => {
    await inScratch(async (dir) => {
      await fill(dir);
      unlinkSync(index(dir));
      const warnings: string[] = [];
      const logger = { ...silentLogger, warn: (line: unknown) => warnings.push(JSON.stringify(line)) };
      const layout = await OciLayout.open(dir, { logger });
      expect(warnings.join()).to.contain('index.json is missing');
      expect(namesOf(layout)).to.have.members(['app:1', 'app:2']);
      expect(readFileSync(index(dir), 'utf8')).to.contain('app:1');
      unlinkSync(index(dir));
      await layout.put(manifestNamed('app:3'));
      await layout.close();
      expect(readFileSync(index(dir), 'utf8'))
        .to.contain('app:1')
        .and.to.contain('app:3');
    });
  });

  it('in part keeps the entries that are valid, and the broken file beside the side state', async () => {
    await inScratch(async (dir) => {
      await fill(dir);
      const text = readFileSync(index(dir), 'utf8').replace('"manifests":[', '"manifests":[{"digest":7},');
      writeFileSync(index(dir), text);
      age(index(dir));
      expect(await failure(OciLayout.open(dir))).to.include({ code: 'LAYOUT_INVALID' });
      await using layout = await OciLayout.open(dir, { repair: true });
      expect(namesOf(layout)).to.have.members(['app:1', 'app:2']);
      expect(readFileSync(join(dir, '.layercache/broken-index.json'), 'utf8')).to.equal(text);
    });
  });

  it('together with the index map is what the owner of the layout derived from it', async () => {
    const list = { mediaType: MediaType.octetStream, annotations: { [Annotation.refName]: 'list' } };
    const extension: LayoutExtension = {
      derive: async (context) => {
        const others = context.entries.filter((one) => refName(one) !== 'list');
        const bytes = Buffer.from(`list ${JSON.stringify(others)}`);
        return {
          put: [{ ...list, digest: await context.writeBlob(bytes), size: bytes.length }],
          drop: [],
          unlink: [],
        };
      },
      recognise: (bytes, digest) =>
        Buffer.from(bytes).toString('latin1', 0, 5) === 'list '
          ? { ...list, mediaType: MediaType.index, digest, size: bytes.byteLength }
          : undefined,
      adopt: async (context) => {
        const found = context.manifests.find((one) => refName(one) === 'list');
        if (found === undefined) return [];
        return JSON.parse(
          Buffer.from(await context.readBlob(found.digest))
            .toString()
            .slice(5),
        ) as Descriptor[];
      },
    };
    await inScratch(async (dir) => {
      await fill(dir, extension);
      rmSync(join(dir, '.layercache'), { recursive: true });
      unlinkSync(index(dir));
      await using layout = await OciLayout.open(dir, { repair: true, extension });
      expect(namesOf(layout)).to.include('app:1');
      expect(layout.restored.join()).to.contain('derived');
    });
  });
});

describe('an index.json that another tool writes in place', () => {
  it('is waited for by those who open and commit; lookups go on with what it said before', async () => {
    await inScratch(async (dir) => {
      await fill(dir);
      await using layout = await OciLayout.open(dir);
      await layout.sync();
      const text = readFileSync(index(dir), 'utf8');
      const fd = openSync(index(dir), 'w');
      writeSync(fd, text.slice(0, 100));
      setTimeout(() => {
        writeSync(fd, text.slice(100));
        closeSync(fd);
      }, 150);
      const opening = OciLayout.open(dir);
      const committing = layout.put(manifestNamed('app:3')).then(() => layout.sync());
      for (let i = 0; i < 30; i++) {
        expect(layout.lookupTag('app:1')).not.to.equal(undefined);
        expect(layout.lookup(digestNumber('absent'))).to.deep.equal([]);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await committing;
      await using other = await opening;
      expect(namesOf(other)).to.include.members(['app:1', 'app:2']);
      expect(readFileSync(index(dir), 'utf8')).to.contain('app:3');
    });
  });

  it('and leaves broken is looked past by lookups, and never written over', async () => {
    await inScratch(async (dir) => {
      await fill(dir);
      const layout = await OciLayout.open(dir);
      writeFileSync(index(dir), '{"manifests": oops}');
      age(index(dir));
      await new Promise((resolve) => setTimeout(resolve, 60));
      expect(layout.lookupTag('app:1')).not.to.equal(undefined);
      expect(await failure(layout.sync())).to.include({ code: 'LAYOUT_INVALID' });
      expect(readFileSync(index(dir), 'utf8')).to.equal('{"manifests": oops}');
      await layout.close().catch((error: unknown) => {
        if (!isLayercacheError(error, 'LAYOUT_INVALID')) throw error;
      });
    });
  });
});

describe('an entry of index.json with a size that no blob can have', () => {
  for (const size of ['9007199254740993', '1e300']) {
    it(`such as ${size} is left out with a warning, and takes no other entry with it`, async () => {
      await inScratch(async (dir) => {
        await fill(dir);
        const odd = `{"mediaType":"a/b","digest":"${layerPair(9).gzip.digest}","size":${size}}`;
        for (const way of ['opened', 'live', 'repaired']) {
          const warnings: string[] = [];
          const logger = { ...silentLogger, warn: (line: unknown) => warnings.push(JSON.stringify(line)) };
          const before = way === 'live' ? await OciLayout.open(dir, { logger }) : undefined;
          const text = readFileSync(index(dir), 'utf8');
          writeFileSync(index(dir), text.replace('"manifests":[', `"manifests":[${odd},`));
          age(index(dir));
          await using layout = before ?? (await OciLayout.open(dir, { logger }));
          if (way === 'repaired') {
            expect((await verify(layout)).problems.map(({ step }) => step)).to.deep.equal(['index']);
            expect((await verify(layout, { repair: true })).ok).to.equal(true);
          } else {
            await layout.put(manifestNamed(`app:${way}`));
            await layout.sync();
          }
          expect(namesOf(layout)).to.include.members(['app:1', 'app:2']);
          expect(layout.lookup(layerPair(1).gzip.digest)[0]?.proven).to.equal(true);
          expect(layout.lookup(layerPair(9).gzip.digest)).to.deep.equal([]);
          expect(warnings.join()).to.contain('1').and.to.contain('left out');
          expect(readFileSync(index(dir), 'utf8')).not.to.contain(layerPair(9).gzip.digest);
          expect((await verify(layout)).problems).to.deep.equal([]);
        }
      });
    });
  }
});

describe('other files of a layout', () => {
  for (const [what, text] of [
    ['missing', undefined],
    ['empty', ''],
  ] as const) {
    it(`an oci-layout that is ${what} is written again by a repair, and only then`, async () => {
      await inScratch(async (dir) => {
        await fill(dir);
        if (text === undefined) unlinkSync(join(dir, 'oci-layout'));
        else writeFileSync(join(dir, 'oci-layout'), text);
        expect(await failure(OciLayout.open(dir))).to.include({ code: 'LAYOUT_INVALID' });
        await using layout = await OciLayout.open(dir, { repair: true });
        expect(namesOf(layout)).to.have.members(['app:1', 'app:2']);
        expect(layout.restored).to.have.length(1);
      });
    });
  }

  it('a folder of something else is not made a layout by a repair', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'notes.txt'), 'x');
      expect(await failure(OciLayout.open(dir, { repair: true }))).to.include({ code: 'LAYOUT_INVALID' });
      expect(readdirSync(dir)).to.deep.equal(['notes.txt']);
    });
  });

  it('an index.json without entries may say null', async () => {
    await inScratch(async (dir) => {
      writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
      writeFileSync(index(dir), '{"schemaVersion":2,"manifests":null}');
      const layout = await OciLayout.open(dir);
      expect([...layout.entries()]).to.deep.equal([]);
      await layout.put(manifestNamed('app:1'));
      await layout.close();
      expect(readFileSync(index(dir), 'utf8')).to.contain('app:1');
    });
  });

  it('an index.json that was edited with its size and time kept is found by verify, and taken up', async () => {
    await inScratch(async (dir) => {
      await fill(dir);
      await (await OciLayout.open(dir)).sync();
      const before = statSync(index(dir), { bigint: true });
      const text = readFileSync(index(dir), 'utf8').replace('app:1', 'new:1');
      const fd = openSync(index(dir), 'r+');
      writeSync(fd, text, 0);
      closeSync(fd);
      const seconds = (ns: bigint): string =>
        `${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;
      utimesSync(index(dir), seconds(before.atimeNs), seconds(before.mtimeNs));
      const same = statSync(index(dir), { bigint: true }).mtimeNs === before.mtimeNs;
      await using layout = await OciLayout.open(dir);
      const report = await verify(layout, { repair: true });
      expect(report.ok).to.equal(true);
      if (same) expect(report.problems.map(({ step }) => step)).to.deep.equal(['map']);
      expect(namesOf(layout)).to.have.members(['app:2', 'new:1']);
      expect(layout.lookup(layerPair(1).gzip.digest)[0]).to.include({ proven: true });
    });
  });
});
