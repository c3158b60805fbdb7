import { expect } from 'chai';
import { Annotation, MediaType, refName, type Digest } from '@layercache/oci';
import { OciLayout, type LayoutExtension } from '../src/index.js';
import { inScratch, layerPair } from './scratch.js';

/** Derives one document from the number of layers, under the name `derived`. */
function deriving(textOf: (layers: number) => string): LayoutExtension {
  return {
    names: ['derived'],
    derive: async (context) => {
      const { entries } = context;
      const layers = entries.filter(({ mediaType }) => mediaType === MediaType.layerGzip);
      const bytes = Buffer.from(textOf(layers.length));
      const digest = await context.writeBlob(bytes);
      const annotations = { [Annotation.refName]: 'derived' };
      const put = [{ mediaType: MediaType.octetStream, digest, size: bytes.length, annotations }];
      const superseded = entries
        .filter((entry) => refName(entry) === 'derived' && entry.digest !== digest)
        .map((entry) => entry.digest);
      return { put, drop: superseded, unlink: superseded, keep: [digest] };
    },
    adopt: () => Promise.resolve([]),
  };
}

const parity = deriving((layers) => `the number of layers is ${layers % 2 === 0 ? 'even' : 'odd'}`);

describe('superseded derived blobs', () => {
  const derived = (layout: OciLayout): Digest => layout.lookupTag('derived')!.descriptor.digest;

  async function withLayout(run: (layout: OciLayout, other: OciLayout) => Promise<void>): Promise<void> {
    await inScratch(async (dir) => {
      const layouts = [
        await OciLayout.open(dir, { extension: parity }),
        await OciLayout.open(dir, { extension: parity }),
      ] as const;
      try {
        await run(...layouts);
      } finally {
        for (const layout of layouts) await layout.close();
      }
    });
  }

  const commit = async (layout: OciLayout, n: number): Promise<Digest> => {
    await layout.put(layerPair(n).gzip);
    await layout.sync();
    return derived(layout);
  };

  it('stay for a while, are no orphans, and go when space is needed', async () => {
    await withLayout(async (layout, other) => {
      const first = await commit(layout, 1);
      const second = await commit(other, 2);
      expect(second).not.to.equal(first);
      expect(layout.retiredBlobs()).to.include(first);
      expect(await layout.has(first)).to.equal(true);
      expect((await layout.orphans({ grace: 0 })).map(({ digest }) => digest)).not.to.include(first);
      expect(await layout.dropRetired(60_000), 'not before their time').to.equal(false);
      expect(await other.dropRetired()).to.equal(true);
      expect(await layout.has(first)).to.equal(false);
      expect(await layout.has(second)).to.equal(true);
      expect(layout.retiredBlobs()).to.deep.equal([]);
    });
  });

  it('stay for good when they are derived again, or get an entry of their own', async () => {
    await withLayout(async (layout) => {
      const odd = await commit(layout, 1);
      const even = await commit(layout, 2);
      expect(await commit(layout, 3)).to.equal(odd);
      await layout.put({ mediaType: MediaType.octetStream, digest: even, size: 30 });
      await layout.dropRetired();
      for (const digest of [odd, even]) expect(await layout.has(digest)).to.equal(true);
    });
  });

  it('take a small part of a limit, and are the first to go when it is reached', async () => {
    await inScratch(async (dir) => {
      const extension = deriving((layers) => `${layers}`.repeat(20_000));
      const limits = { maxSize: 1_000_000 };
      const layout = await OciLayout.open(dir, { extension, limits });
      for (let n = 0; n < 20; n++) await commit(layout, n);
      const sizes = await Promise.all(layout.retiredBlobs().map((digest) => layout.blobSize(digest)));
      const kept = sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
      expect(kept).to.be.within(1, limits.maxSize / 16);
      const stored = [];
      for await (const { size } of layout.storedBlobs()) stored.push(size);
      expect(stored.reduce((sum, size) => sum + size, 0)).to.equal(
        kept + (await layout.blobSize(derived(layout)))!,
      );
      await layout.close();
    });
  });
});
