import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { encodeCacheIndex } from '../../src/index.js';
import { entriesForPush, imagesForPush } from '../../src/share/merge.js';
import {
  contains,
  listsOf,
  revisionOf,
  stateOf,
  type SharedLists,
  type SharedState,
} from '../../src/share/shared-state.js';

const layer = (n: number): string => `layer ${n}`;

/** An entry of few digests and few facts, so that lists of them meet and differ. */
const entries = fc
  .record(
    {
      n: fc.integer({ min: 0, max: 4 }),
      revision: fc.integer({ min: 0, max: 2 }),
      diffID: fc.integer({ min: 0, max: 2 }),
      tars: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }),
      size: fc.integer({ min: 1, max: 2 }),
    },
    { requiredKeys: ['n', 'size'] },
  )
  .map(({ n, revision = 0, diffID, tars = [], size }): Descriptor => ({
    mediaType: tars.length === 0 ? MediaType.layerGzip : MediaType.layer,
    digest: digestOf(layer(n)),
    size,
    annotations: {
      ...(diffID === undefined ? {} : { [Annotation.diffID]: digestOf(`tar ${diffID}`) }),
      ...(tars.length === 0
        ? {}
        : { [Annotation.digest]: [...new Set(tars.map((tar) => digestOf(`gz ${tar}`)))].sort().join(',') }),
      ...(revision === 0 ? {} : { [Annotation.revision]: String(revision) }),
    },
  }));

const image = (n: number, name?: string, revision = 0): Descriptor => ({
  mediaType: MediaType.manifest,
  digest: digestOf(`image ${n}`),
  size: 500,
  ...(name === undefined
    ? {}
    : {
        annotations: {
          [Annotation.refName]: name,
          [Annotation.containerdName]: name,
          ...(revision === 0 ? {} : { [Annotation.revision]: String(revision) }),
        },
      }),
});

const images = fc
  .record({
    n: fc.integer({ min: 0, max: 3 }),
    name: fc.option(fc.constantFrom('a:1', 'b:1', 'c:1'), { nil: undefined }),
    revision: fc.integer({ min: 0, max: 2 }),
  })
  .map(({ n, name, revision }) => image(n, name, revision));

const lists: fc.Arbitrary<SharedLists> = fc.record({
  entries: fc.array(entries, { maxLength: 6 }),
  images: fc.array(images, { maxLength: 6 }),
});

const bytesOf = (state: SharedState): string => {
  const listed = listsOf(state);
  return Buffer.from(encodeCacheIndex(listed.entries, listed.images).bytes).toString();
};

describe('what several cache indexes say together', () => {
  it('is the same in whatever order and however often they are joined', () => {
    fc.assert(
      fc.property(lists, lists, lists, (a, b, c) => {
        const all = bytesOf(stateOf(a, b, c));
        expect(bytesOf(stateOf(c, a, b))).to.equal(all);
        expect(bytesOf(stateOf(listsOf(stateOf(b, c)), a))).to.equal(all);
        expect(bytesOf(stateOf(listsOf(stateOf(a, b)), b, c, a))).to.equal(all);
      }),
      { numRuns: 300 },
    );
  });

  it('contains each of them, and is contained in one only when that says as much', () => {
    fc.assert(
      fc.property(lists, lists, (a, b) => {
        const [one, both] = [stateOf(a), stateOf(a, b)];
        expect(contains(both, one)).to.equal(true);
        expect(contains(one, both)).to.equal(bytesOf(one) === bytesOf(both));
      }),
      { numRuns: 300 },
    );
  });

  it('contains what a push made of it, and the push contains it', () => {
    fc.assert(
      fc.property(lists, lists, fc.boolean(), (theirs, ours, proven) => {
        const remote = listsOf(stateOf(theirs));
        const own = listsOf(stateOf(ours));
        const pushed = stateOf(remote, {
          entries: entriesForPush(
            remote.entries,
            own.entries.map((descriptor) => ({ descriptor, proven })),
          ),
          images: imagesForPush(remote.images, own.images, []),
        });
        expect(contains(pushed, stateOf(remote))).to.equal(true);
      }),
      { numRuns: 300 },
    );
  });

  it('lets a proof replace a false claim wherever they meet', () => {
    const claimed = (tar: string): Descriptor => ({
      mediaType: MediaType.layerGzip,
      digest: digestOf('layer'),
      size: 1,
      annotations: { [Annotation.diffID]: digestOf(tar) },
    });
    for (const [right, wrong] of [
      ['x', 'y'],
      ['y', 'x'],
    ] as const) {
      const [pushed] = entriesForPush([claimed(wrong)], [{ descriptor: claimed(right), proven: true }]);
      const joined = stateOf({
        entries: [claimed(wrong), ...(pushed === undefined ? [] : [pushed])],
        images: [],
      });
      const [entry] = joined.entries.values();
      expect(entry?.annotations?.[Annotation.diffID]).to.equal(digestOf(right));
      const [unproven] = entriesForPush([claimed(wrong)], [{ descriptor: claimed(right), proven: false }]);
      expect(unproven?.annotations?.[Annotation.diffID]).to.equal(digestOf(wrong));
    }
  });

  it('lets a name mean what it was moved to, beside an index that never heard of that', () => {
    const before = [image(1, 'app:1')];
    for (const [from, to] of [
      [1, 2],
      [2, 1],
    ] as const) {
      const moved = imagesForPush([image(from, 'app:1')], [image(to, 'app:1')], before.slice(0, 0));
      expect(moved.map(revisionOf)).to.deep.equal([1]);
      const { names } = stateOf({ entries: [], images: [image(from, 'app:1'), ...moved] });
      expect(names.get('app:1')?.digest).to.equal(image(to).digest);
    }
    const stale = imagesForPush([image(2, 'app:1')], before, before);
    expect(stale).to.deep.equal([image(1)]);
  });

  it('counts no revision that is not a number of up to nine digits', () => {
    for (const text of ['-1', '1e9', '99999999999', 'x', '']) {
      expect(revisionOf({ ...image(1), annotations: { [Annotation.revision]: text } })).to.equal(0);
    }
  });
});
