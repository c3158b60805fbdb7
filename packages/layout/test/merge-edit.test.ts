import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, digestOf, refName, type Descriptor, type Digest } from '@layercache/oci';
import { OciLayout, type LayoutExtension } from '../src/index.js';
import { blobOf, digestNumber, inScratch, layerPair, manifestNamed } from './scratch.js';

const DERIVED = 'derived';

/** Derives one blob from all names, as a cache index is derived from all entries. */
const extension: LayoutExtension = {
  names: [DERIVED],
  adopt: () => Promise.resolve([]),
  derive: async (context) => {
    const isDerived = (one: Descriptor): boolean => refName(one) === DERIVED;
    const before = context.entries.filter(isDerived).concat(context.superseded);
    const others = context.entries.filter((one) => !isDerived(one));
    const bytes = Buffer.from(JSON.stringify(others.map((one) => [refName(one), one.digest])));
    const digest = await context.writeBlob(bytes);
    const gone = before.map((one) => one.digest).filter((one) => one !== digest);
    const annotations = { [Annotation.refName]: DERIVED };
    const put = [{ mediaType: MediaType.index, digest, size: bytes.length, annotations }];
    return { put, drop: gone, unlink: gone };
  },
};

/** An image whose bytes are here, under a name or none. */
async function image(layout: OciLayout, n: number, name?: string): Promise<Descriptor> {
  const bytes = Buffer.from(`manifest ${n}`);
  await layout.write(bytes);
  const descriptor = blobOf(bytes, MediaType.manifest);
  return name === undefined ? descriptor : { ...descriptor, annotations: { [Annotation.refName]: name } };
}

const read = (dir: string): Descriptor[] =>
  (JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')) as { manifests: Descriptor[] }).manifests;
const write = (dir: string, manifests: readonly Descriptor[]): void => {
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
};
/** What each name means, but the derived one. */
const meanings = (layout: OciLayout): Record<string, Digest> =>
  Object.fromEntries(
    Array.from(layout.tags(), ([name, { descriptor }]): [string, Digest] => [name, descriptor.digest]).filter(
      ([name]) => name !== DERIVED,
    ),
  );
const named = (descriptor: Descriptor, name: string): Descriptor => ({
  ...descriptor,
  annotations: { [Annotation.refName]: name },
});

async function inCache(run: (layout: OciLayout, dir: string) => Promise<void>): Promise<void> {
  await inScratch(async (dir) => {
    const layout = await OciLayout.open(dir, { extension });
    try {
      await run(layout, dir);
    } finally {
      await layout.close();
    }
  });
}
async function reopened<T>(dir: string, run: (layout: OciLayout) => T | Promise<T>): Promise<T> {
  await using layout = await OciLayout.open(dir, { extension });
  return await run(layout);
}

describe('names that another tool edits', () => {
  const names = ['a:1', 'b:1', 'c:1'];
  const state = fc.dictionary(fc.constantFrom(...names), fc.integer({ min: 0, max: 3 }), {
    noNullPrototype: true,
  });

  it('mean what the tool says where it changed them since it read, and what we say elsewhere', async () => {
    await fc.assert(
      fc.asyncProperty(state, fc.array(state, { maxLength: 3 }), state, async (base, ours, theirs) => {
        await inCache(async (layout, dir) => {
          const images = await Promise.all([0, 1, 2, 3].map((n) => image(layout, n)));
          const become = async (wanted: Record<string, number>): Promise<void> => {
            for (const name of names) {
              const n = wanted[name];
              if (n === undefined) await layout.untag(name);
              else await layout.put(named(images[n]!, name));
            }
            await layout.sync();
          };
          await become(base);
          const readByTool = read(dir);
          for (const one of ours) await become(one);
          const last = ours.at(-1) ?? base;
          write(dir, [
            ...readByTool.filter((one) => !names.includes(refName(one) ?? '')),
            ...Object.entries(theirs).map(([name, n]) => named(images[n]!, name)),
          ]);
          const expected: Record<string, Digest> = {};
          for (const name of names) {
            const n = theirs[name] === base[name] ? last[name] : theirs[name];
            if (n !== undefined) expected[name] = images[n]!.digest;
          }
          expect(await reopened(dir, meanings)).to.deep.equal(expected);
          expect(await reopened(dir, meanings), 'after a commit').to.deep.equal(expected);
        });
      }),
      { numRuns: 10 },
    );
  });

  it('are removed with the entry that was deleted, and stay removed; the image stays nameless', async () => {
    await inCache(async (layout, dir) => {
      const [one, two] = [await image(layout, 1, 'a:1'), await image(layout, 2, 'b:1')];
      await layout.put([one, two]);
      await layout.sync();
      write(
        dir,
        read(dir).filter((each) => refName(each) !== 'a:1'),
      );
      for (let times = 0; times < 2; times++) {
        expect(await reopened(dir, meanings)).to.deep.equal({ 'b:1': two.digest });
      }
      expect(await reopened(dir, (other) => other.lookup(one.digest).length)).to.equal(1);
    });
  });

  it('belong to the last entry of the file that has them, for lookups, lists and the next commit alike', async () => {
    await inCache(async (layout, dir) => {
      const images = [await image(layout, 1), await image(layout, 2), await image(layout, 3)];
      await layout.put(images);
      await layout.sync();
      for (const order of [
        [0, 1],
        [1, 0],
      ] as const) {
        write(dir, [...images, ...order.map((n) => named(images[n]!, 'x'))]);
        const meant = { x: images[order[1]]!.digest };
        expect(await reopened(dir, meanings)).to.deep.equal(meant);
        expect(read(dir).filter((one) => refName(one) === 'x')).to.have.length(1);
        expect(await reopened(dir, meanings)).to.deep.equal(meant);
      }
      await reopened(dir, (other) => other.put(named(images[2]!, 'x')));
      expect(await reopened(dir, meanings)).to.deep.equal({ x: images[2]!.digest });
    });
  });

  it('are none when they are empty, and one when an entry stands twice', async () => {
    await inCache(async (layout, dir) => {
      const one = await image(layout, 1);
      const twice = named(one, 'x');
      write(dir, [
        one,
        named(one, ''),
        { ...twice, annotations: { ...twice.annotations, first: '1' } },
        { ...twice, annotations: { ...twice.annotations, second: '2' } },
      ]);
      await reopened(dir, (other) => {
        expect(other.lookup(one.digest).map(({ descriptor }) => descriptor.annotations)).to.deep.equal([
          undefined,
          { [Annotation.refName]: 'x', first: '1', second: '2' },
        ]);
        expect(other.lookupTag('')).to.equal(undefined);
      });
      expect(read(dir).filter((each) => each.digest === one.digest)).to.have.length(2);
    });
  });

  it('that an adopted document has do not move those that are here', async () => {
    await inScratch(async (dir) => {
      const adopting: LayoutExtension = {
        ...extension,
        adopt: () => Promise.resolve([manifestNamed('a:1', 'theirs'), manifestNamed('b:1', 'theirs too')]),
      };
      await using layout = await OciLayout.open(dir, { extension: adopting });
      await layout.put(manifestNamed('a:1', 'ours'));
      await layout.sync();
      write(dir, [...read(dir), manifestNamed('new:1')]);
      await layout.sync();
      expect(meanings(layout)).to.deep.equal({
        'a:1': digestNumber('ours'),
        'b:1': digestNumber('theirs too'),
        'new:1': digestNumber('new:1'),
      });
    });
  });
});

describe('what commits derive', () => {
  it('is replaced, and leaves no blob or entry behind, when a tool drops it or writes an old one back', async () => {
    await inCache(async (layout, dir) => {
      await layout.put(await image(layout, 1, 'a:1'));
      await layout.sync();
      const old = read(dir);
      await layout.put(await image(layout, 2, 'b:1'));
      await layout.sync();
      const edits: Descriptor[][] = [old, read(dir).filter((one) => refName(one) !== DERIVED)];
      for (const edit of edits) {
        write(dir, edit);
        await reopened(dir, (other) => other.put(layerPair(edits.indexOf(edit)).gzip));
        const derived = read(dir).filter((one) => one.mediaType === MediaType.index);
        expect(derived.map(refName)).to.deep.equal([DERIVED]);
        const blobs = await reopened(dir, async (other) => {
          await other.dropRetired();
          const digests: Digest[] = [];
          for await (const { digest } of other.storedBlobs()) digests.push(digest);
          return digests;
        });
        const images = [1, 2].map((n) => digestOf(Buffer.from(`manifest ${n}`)));
        expect(blobs).to.have.members([...images, derived[0]!.digest]);
      }
    });
  });
});

describe('an iteration', () => {
  it('is what was there when it began, whatever is put, moved and removed meanwhile', async () => {
    await inScratch(async (dir) => {
      await using ours = await OciLayout.open(dir);
      await using theirs = await OciLayout.open(dir);
      const all = Array.from({ length: 40 }, (_, n) => manifestNamed(`image:${n}`));
      await ours.put(all.slice(0, 20));
      await ours.sync();
      await ours.put(all.slice(20));
      const before = Array.from(ours.entries(), ({ descriptor }) => descriptor);
      const seen: Descriptor[] = [];
      for (const { descriptor } of ours.entries()) {
        const n = seen.push(descriptor);
        const other = all[(n * 7) % 40]!;
        if (n % 3 === 0)
          await theirs.put({ ...other, annotations: { ...other.annotations, note: String(n) } });
        if (n % 3 === 1) await theirs.untag(refName(other)!);
        if (n === 10) await theirs.remove(all[39]!.digest);
        if (n === 20) await theirs.sync();
        ours.lookup(digestNumber('anything'));
      }
      expect(seen).to.deep.equal(before);
    });
  });
});
