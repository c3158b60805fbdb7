import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { decodeCacheIndex, decodeShard, encodeCacheIndex } from '../src/index.js';
import { travellingEntries, uniteEntries } from '../src/share/travelling.js';

const gzip = (seed: string | number): Descriptor => ({
  mediaType: MediaType.layerGzip,
  digest: digestOf(`layer ${seed}`),
  size: 1000,
  annotations: { [Annotation.diffID]: digestOf(`tar ${seed}`) },
});
const tarOf = (seed: string | number): Descriptor => ({
  mediaType: MediaType.layer,
  digest: digestOf(`tar ${seed}`),
  size: 5000,
});
const many = (count: number): Descriptor[] => Array.from({ length: count }, (_, seed) => gzip(seed));

/** Small enough that a few hundred entries need several shards. */
const SHARD = 8 * 1024;

describe('the cache index', () => {
  it('has the same bytes for the same set, in whatever order it is given', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(many(60), { minLength: 60 }), (shuffled) => {
        const one = encodeCacheIndex(many(60), [], SHARD);
        const two = encodeCacheIndex(shuffled, [], SHARD);
        expect(Buffer.compare(one.bytes, two.bytes)).to.equal(0);
      }),
      { numRuns: 20 },
    );
  });

  it('gives back every entry it was made of, less what only its author wrote', () => {
    const odd: Descriptor = {
      ...gzip('odd'),
      annotations: { ...gzip('odd').annotations, 'vendor.example/note': 'ä"\\' },
      future: { nested: [1, 2] },
    };
    const index = encodeCacheIndex([...many(100), odd], [], SHARD);
    const decoded = decodeCacheIndex(index.bytes, 'index');
    expect(decoded?.shards).to.deep.equal(index.shards.map((shard) => shard.descriptor));
    const entries = index.shards.flatMap((shard) => decodeShard(shard.bytes, 'shard').entries);
    const sorted = [...many(100), gzip('odd')].sort((a, b) => (a.digest < b.digest ? -1 : 1));
    expect(entries).to.deep.equal(sorted);
  });

  it('keeps every shard below the limit, and names each by a prefix of the digests in it', () => {
    const index = encodeCacheIndex(many(500), [], SHARD);
    expect(index.shards.length).to.be.greaterThan(10);
    for (const shard of index.shards) {
      expect(shard.bytes.length).to.be.at.most(SHARD);
      for (const entry of shard.entries) {
        const bits = Buffer.from(entry.digest.slice(7), 'hex').reduce(
          (text, byte) => text + byte.toString(2).padStart(8, '0'),
          '',
        );
        expect(bits.startsWith(shard.prefix)).to.equal(true);
      }
    }
  });

  it('changes one shard for one more entry, unless that one has to be split', () => {
    const before = encodeCacheIndex(many(500), [], SHARD);
    const after = encodeCacheIndex([...many(500), gzip('new')], [], SHARD);
    const known = new Set(before.shards.map((shard) => shard.descriptor.digest));
    const fresh = after.shards.filter((shard) => !known.has(shard.descriptor.digest));
    expect(fresh.length).to.be.at.most(2);
    if (fresh.length === 2) expect(after.shards.length).to.equal(before.shards.length + 1);
  });

  it('lists images beside the shards, and tells them apart also when a tool dropped artifactType', () => {
    const image: Descriptor = {
      mediaType: MediaType.manifest,
      digest: digestOf('image'),
      size: 500,
      annotations: {
        [Annotation.refName]: 'docker.io/library/app:1',
        [Annotation.containerdName]: 'docker.io/library/app:1',
      },
    };
    const index = encodeCacheIndex(many(3), [image]);
    const document = JSON.parse(Buffer.from(index.bytes).toString()) as {
      artifactType?: string;
      manifests: { artifactType?: string }[];
    };
    delete document.artifactType;
    for (const manifest of document.manifests) delete manifest.artifactType;
    const decoded = decodeCacheIndex(Buffer.from(JSON.stringify(document)), 'index');
    expect(decoded?.images).to.deep.equal([image]);
    expect(decoded?.shards).to.have.length(1);
  });

  it('is not mistaken for the index of an image', () => {
    const manifests = [{ mediaType: MediaType.manifest, digest: digestOf('image'), size: 500 }];
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests }));
    expect(decodeCacheIndex(bytes, 'index')).to.equal(undefined);
  });
});

describe('the entries that travel', () => {
  it('leave a tar at home that was derived from a compressed form, and take one that was not', () => {
    const proven = new Set([gzip(1).digest]);
    const travelling = travellingEntries([gzip(1), tarOf(1), gzip(2), tarOf(2)], proven);
    const digests = [gzip(1), gzip(2), tarOf(2)].map((entry) => entry.digest);
    expect(travelling.map((entry) => entry.digest)).to.deep.equal(digests);
    expect(travellingEntries([gzip(1), tarOf(1)], proven, true)).to.have.length(2);
  });

  it('are not left at home because somebody claims that a layer contains them', () => {
    const blob = { ...tarOf(1), mediaType: MediaType.octetStream };
    expect(travellingEntries([gzip(1), blob], new Set([gzip(1).digest]))).to.have.length(2);
    expect(travellingEntries([gzip(1), tarOf(1)], new Set())).to.have.length(2);
  });

  it('are each there once, with what every side knows of them', () => {
    const [plain] = uniteEntries(
      [{ ...gzip(1), annotations: { a: '1' } }],
      [{ ...gzip(1), annotations: { b: '2' } }],
    );
    expect(plain?.annotations).to.deep.equal({ a: '1', b: '2' });
    const listed = (digest: string): Descriptor => ({
      ...tarOf(1),
      annotations: { [Annotation.digest]: digest },
    });
    const [tar] = uniteEntries([listed(digestOf('x'))], [listed(digestOf('y'))]);
    expect(tar?.annotations?.[Annotation.digest]?.split(',')).to.deep.equal(
      [digestOf('x'), digestOf('y')].sort(),
    );
  });
});
