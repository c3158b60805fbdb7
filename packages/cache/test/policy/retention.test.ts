import { readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestHex, type Digest } from '@layercache/oci';
import type { LayerCache } from '../../src/index.js';
import {
  imageOf,
  layerOf,
  pushImage,
  pushIndex,
  tarOf,
  type BuiltImage,
  type BuiltLayer,
} from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';

const DAY = 86_400_000;
const APP = 'reg.test/r/app';

const layer = (content: string): BuiltLayer => layerOf(tarOf({ data: content.repeat(1000) }));

async function blobsOf(cache: LayerCache): Promise<Set<string>> {
  return new Set(await readdir(join(cache.dir, 'blobs', 'sha256')));
}

async function age(cache: LayerCache, digests: readonly Digest[], days: number): Promise<void> {
  const when = new Date(Date.now() - days * DAY);
  for (const digest of digests)
    await utimes(join(cache.dir, 'blobs', 'sha256', digestHex(digest)), when, when);
}

const partsOf = (image: BuiltImage): Digest[] => [
  image.descriptor.digest,
  image.config.descriptor.digest,
  ...image.layers.map((each) => each.descriptor.digest),
];

describe('retention', () => {
  const scratch = new Scratch();
  const registry = memoryRegistry();
  const shared = layer('shared');
  const one = imageOf([shared, layer('one')]);
  const two = imageOf([shared, layer('two')]);
  let cache: LayerCache;

  before(async () => {
    await pushImage(registry, 'r/app', 'one', one);
    await pushImage(registry, 'r/app', 'two', two);
  });
  beforeEach(async () => {
    cache = await scratch.cache({ registry: () => registry });
    await cache.add(`${APP}:one`);
    await cache.add(`${APP}:two`);
  });
  afterEach(() => scratch.clean());

  it('prunes what was not used for long, files and all, and keeps what is shared', async () => {
    await age(cache, partsOf(one), 8);
    await age(cache, partsOf(two).slice(1), 2);
    const report = await cache.prune({ unusedFor: 7 * DAY });
    expect(report.items.map(({ kind, names, reason }) => ({ kind, names, reason }))).to.deep.equal([
      { kind: 'image', names: [`${APP}:one`], reason: 'unused' },
    ]);
    await failure('NOT_FOUND', () => cache.image(`${APP}:one`));
    const blobs = await blobsOf(cache);
    expect(blobs.has(digestHex(one.layers[1]!.descriptor.digest))).to.equal(false);
    expect(blobs.has(digestHex(one.descriptor.digest))).to.equal(false);
    expect(blobs.has(digestHex(shared.descriptor.digest))).to.equal(true);
    expect((await bytesOf(cache.layer(shared.diffID).uncompressed())).equals(shared.tar)).to.equal(true);
  });

  it('says in a dry run what a prune then does, and does nothing', async () => {
    await age(cache, partsOf(one), 8);
    const before = await blobsOf(cache);
    const dry = await cache.prune({ unusedFor: 7 * DAY, dryRun: true });
    expect(await blobsOf(cache)).to.deep.equal(before);
    expect(cache.image(`${APP}:one`)).to.be.an('object');
    const wet = await cache.prune({ unusedFor: 7 * DAY });
    expect(wet.items).to.deep.equal(dry.items);
    expect(wet.bytes).to.equal(dry.bytes);
    expect(dry.dryRun).to.equal(true);
  });

  it('prunes to a size by what it costs: first tars that can be made again, then what was used least', async () => {
    for (const each of [...one.layers, ...two.layers]) await bytesOf(cache.layer(each.diffID).uncompressed());
    await age(cache, partsOf(one), 3);
    const { free, byKind } = await cache.reclaimable();
    expect(byKind.tar).to.equal(shared.tar.length + one.layers[1]!.tar.length + two.layers[1]!.tar.length);
    expect(free).to.equal(byKind.tar);
    const size = async (): Promise<number> => (await cache.stats()).disk.total;
    const tars = await cache.prune({ maxSize: (await size()) - byKind.tar + 3000 });
    expect(tars.items.map(({ kind }) => kind)).to.deep.equal(['tar', 'tar', 'tar']);
    expect([...cache.images()]).to.have.length(2);
    await cache.prune({ maxSize: (await size()) - 10 });
    expect([...cache.images()].map(({ name }) => name)).to.deep.equal([`${APP}:two`]);
  });

  it('never takes out what is pinned, also when its name moves, until it is unpinned', async () => {
    await cache.pin(`${APP}:one`);
    const moved = imageOf([layer('moved')]);
    await pushImage(registry, 'r/app', 'one', moved);
    await cache.tags.invalidate(`${APP}:one`);
    await cache.add(`${APP}:one`);
    expect(cache.image(`${APP}:one`).digest).to.equal(moved.descriptor.digest);
    const reopened = await scratch.cache({ dir: cache.dir, registry: () => registry });
    await reopened.prune({ maxSize: 0 });
    expect([...reopened.images()].map(({ name }) => name)).to.deep.equal([`${APP}:one`]);
    const stays = moved.layers[0]!;
    expect((await bytesOf(reopened.layer(stays.diffID).uncompressed())).equals(stays.tar)).to.equal(true);
    expect(reopened.lookup(one.descriptor.digest), 'what it named before is not pinned').to.deep.equal([]);
    await reopened.unpin(`${APP}:one`);
    await reopened.prune({ maxSize: 0 });
    expect([...reopened.images()]).to.deep.equal([]);
    await pushImage(registry, 'r/app', 'one', one);
  });

  it('takes out orphans and interrupted downloads, but not young ones', async () => {
    const hex = 'ab'.repeat(32);
    const young = 'cd'.repeat(32);
    const partial = join(cache.dir, '.layercache', 'ingest', `sha256-${hex}.partial`);
    await writeFile(join(cache.dir, 'blobs', 'sha256', hex), 'left over');
    await writeFile(join(cache.dir, 'blobs', 'sha256', young), 'someone is writing');
    await writeFile(partial, 'the beginning');
    const old = new Date(Date.now() - 2 * 3_600_000);
    await utimes(join(cache.dir, 'blobs', 'sha256', hex), old, old);
    await utimes(partial, old, old);
    expect((await cache.reclaimable()).free).to.equal(22);
    const report = await cache.prune();
    expect(report.items.map(({ kind, bytes }) => ({ kind, bytes }))).to.deep.equal([
      { kind: 'orphan', bytes: 9 },
      { kind: 'partial', bytes: 13 },
    ]);
    const blobs = await blobsOf(cache);
    expect(blobs.has(hex)).to.equal(false);
    expect(blobs.has(young)).to.equal(true);
    expect((await cache.prune()).items).to.deep.equal([]);
  });

  it('removes an image by name with what no other needs, and again without complaint', async () => {
    expect(await cache.remove(`${APP}:one`)).to.equal(true);
    expect(await cache.remove(`${APP}:one`)).to.equal(false);
    const blobs = await blobsOf(cache);
    expect(blobs.has(digestHex(one.layers[1]!.descriptor.digest))).to.equal(false);
    expect(blobs.has(digestHex(shared.descriptor.digest))).to.equal(true);
    const { digest } = two.layers[1]!.descriptor;
    expect(await cache.remove(digest, { force: true })).to.equal(true);
    expect(await cache.remove(digest)).to.equal(false);
    expect((await blobsOf(cache)).has(digestHex(digest))).to.equal(false);
    expect(await cache.remove(two.descriptor.digest)).to.equal(true);
    expect([...cache.images()]).to.deep.equal([]);
  });

  it('refuses to remove what an image needs unless it is forced', async () => {
    const index = await pushIndex(registry, 'r/app', 'both', [one, two]);
    await cache.add(`${APP}:both`, { platform: 'all' });
    const parts = [shared.descriptor, one.layers[1]!.descriptor, one.config.descriptor, one.descriptor];
    for (const { digest } of parts) {
      const error = await failure('USAGE', () => cache.remove(digest));
      expect(error.message).to.match(/is needed by image reg\.test\/r\/app:(one|both)/);
    }
    expect((await cache.verify()).ok).to.equal(true);
    await bytesOf(cache.layer(shared.diffID).uncompressed());
    expect(await cache.remove(shared.diffID), 'a tar is made again').to.equal(true);
    expect(await cache.remove(index.digest)).to.equal(true);
    expect(await cache.remove(parts[1]!.digest, { force: true })).to.equal(true);
    const { problems, ok } = await cache.verify();
    expect(ok).to.equal(false);
    expect(problems.map(({ step, kind, digest }) => ({ step, kind, digest }))).to.deep.equal([
      { step: 'images', kind: 'missing', digest: one.descriptor.digest },
    ]);
    expect(problems[0]!.message).to.include(parts[1]!.digest).and.include(`${APP}:one`);
    await cache.add(`${APP}:one`);
    expect((await cache.verify()).ok).to.equal(true);
  });

  it('lists images without a name, of a tag that moved or of a source without names, and removes them', async () => {
    await pushImage(registry, 'r/app', 'moving', one);
    await cache.add(`${APP}:moving`);
    const next = imageOf([layer('next')]);
    await pushImage(registry, 'r/app', 'moving', next);
    await cache.remove(`${APP}:one`);
    expect(await cache.unnamedImages()).to.deep.equal([]);
    await cache.tags.invalidate(`${APP}:moving`);
    await cache.add(`${APP}:moving`);
    expect((await cache.unnamedImages()).map(({ digest }) => digest)).to.deep.equal([one.descriptor.digest]);
    await cache.exportSoci(`${APP}:two`);
    expect(await cache.unnamedImages(), 'a referrer is no image').to.have.length(1);
    expect(await cache.remove(one.descriptor.digest)).to.equal(true);
    expect(await cache.unnamedImages()).to.deep.equal([]);
    expect((await blobsOf(cache)).has(digestHex(one.layers[1]!.descriptor.digest))).to.equal(false);
    await pushImage(registry, 'r/app', 'one', one);
  });

  it('takes only the name from an image that has another', async () => {
    await cache.add(`${APP}:one`, { name: 'also:this' });
    await cache.remove(`${APP}:one`);
    expect(cache.image('also:this').digest).to.equal(one.descriptor.digest);
    expect((await blobsOf(cache)).has(digestHex(one.layers[1]!.descriptor.digest))).to.equal(true);
  });

  it('does not tell other machines what is pinned here, or when it is over', async () => {
    await cache.add(`${APP}:one`, { ttl: DAY });
    await cache.pin(`${APP}:one`);
    await cache.push('reg.test/team/cache:main');
    const next = await scratch.cache({ registry: () => registry });
    await next.pull('reg.test/team/cache:main');
    expect(Object.keys(next.image(`${APP}:one`).annotations ?? {}).sort()).to.deep.equal([
      'io.containerd.image.name',
      'org.opencontainers.image.ref.name',
    ]);
  });

  describe('with times', () => {
    it('raises EXPIRED for an image whose time is over, and adding it again fetches nothing', async () => {
      await cache.add(`${APP}:one`, { ttl: 1 });
      await new Promise((resolve) => setTimeout(resolve, 5));
      await failure('EXPIRED', () => cache.image(`${APP}:one`));
      registry.asked.clear();
      const again = await cache.add(`${APP}:one`, { ttl: DAY });
      expect(again.fetched).to.equal(0);
      expect(registry.asked.get('fetchBlob')).to.equal(undefined);
      expect(registry.asked.get('fetchManifest')).to.equal(undefined);
      expect(cache.image(`${APP}:one`).digest).to.equal(one.descriptor.digest);
    });

    it('keeps for ever what is added again without a time', async () => {
      await cache.add(`${APP}:one`, { ttl: 1 });
      await cache.add(`${APP}:one`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(cache.image(`${APP}:one`)).to.be.an('object');
    });

    it('removes the files of what is over when it prunes and when it closes', async () => {
      const dir = join(await scratch.dir(), 'cache');
      const short = await scratch.cache({ dir, registry: () => registry, ttl: 1 });
      await short.add(`${APP}:one`);
      await short.add(`${APP}:two`, { ttl: DAY });
      await new Promise((resolve) => setTimeout(resolve, 5));
      const report = await short.prune({ dryRun: true });
      expect(report.items.map(({ reason, names }) => [reason, names])).to.deep.equal([
        ['expired', [`${APP}:one`]],
      ]);
      await short.close();
      expect(await blobsOf(short)).not.to.include(digestHex(one.layers[1]!.descriptor.digest));
      const next = await scratch.cache({ dir, registry: () => registry });
      await failure('NOT_FOUND', () => next.image(`${APP}:one`));
      expect(next.image(`${APP}:two`)).to.be.an('object');
    });

    it('takes only the names that are over from an image that has others', async () => {
      await cache.add(`${APP}:two`, { name: 'short:lived', ttl: 1 });
      await new Promise((resolve) => setTimeout(resolve, 5));
      await cache.prune();
      await failure('NOT_FOUND', () => cache.image('short:lived'));
      expect(cache.image(`${APP}:two`).digest).to.equal(two.descriptor.digest);
    });
  });
});
