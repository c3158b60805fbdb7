import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import type { PruneReport } from '@layercache/cache';
import { parseDuration, parseSize } from '../src/quantity.js';
import { Bench } from './program.js';

describe('layercache prune, rm and pin', function () {
  this.timeout(60_000);
  let bench: Bench;
  let image: string;

  beforeEach(async () => {
    bench = await Bench.open();
    image = `${bench.host}/demo/app:1`;
    await bench.pushImage();
    await bench.run('add', image);
  });
  afterEach(() => bench.close());

  it('says what would go and why, and takes it out when it is not a dry run', async () => {
    const dry = await bench.run('prune', '--max-size', '0', '--dry-run');
    expect(dry.code, dry.stderr).to.equal(0);
    expect(dry.stdout.toString()).to.match(/^SIZE +KIND +LAST USE +WHY +WHAT\n/);
    expect(dry.stdout.toString()).to.include('too much').and.include(image);
    expect(dry.stderr).to.include('would be freed');
    expect((await bench.run('ls', '--images')).stdout.toString()).to.include(image);
    const wet = JSON.parse(
      (await bench.run('--json', 'prune', '--max-size', '0')).stdout.toString(),
    ) as PruneReport;
    expect(wet.items.map(({ names }) => names)).to.deep.equal([[image]]);
    expect(wet.bytes).to.be.greaterThan(0);
    expect((await bench.run('ls', '--images')).stdout.toString()).not.to.include(image);
    expect((await bench.run('prune')).stderr).to.include('0 items');
  });

  it('keeps what is pinned until it is unpinned', async () => {
    expect((await bench.run('pin', image)).code).to.equal(0);
    await bench.run('prune', '--max-size', '0', '--strategy', 'lru');
    expect((await bench.run('ls', '--images')).stdout.toString()).to.include(image);
    expect((await bench.run('unpin', image)).code).to.equal(0);
    await bench.run('prune', '--max-size', '0', '--strategy', 'lru');
    expect((await bench.run('ls', '--images')).stdout.toString()).not.to.include(image);
    expect((await bench.run('pin', image)).code).to.equal(3);
  });

  it('removes by name, and does not complain of what is not there', async () => {
    const removed = await bench.run('--json', 'rm', image, 'not/there:1');
    expect(removed.code).to.equal(0);
    expect(JSON.parse(removed.stdout.toString())).to.deep.equal([
      { name: image, removed: true },
      { name: 'not/there:1', removed: false },
    ]);
    expect((await bench.run('ls', '--images')).stdout.toString()).not.to.include(image);
  });

  it('refuses to remove a layer that an image needs, unless forced, and verify tells what is lost', async () => {
    const { layers } = JSON.parse((await bench.run('--json', 'ls', '--layers')).stdout.toString()) as {
      layers: { digests: string[] }[];
    };
    const [digest = ''] = layers[0]!.digests;
    const refused = await bench.run('rm', digest);
    expect(refused.code).to.equal(2);
    expect(refused.stderr).to.include(image).and.include('force');
    expect((await bench.run('rm', '--force', digest)).code).to.equal(0);
    const verified = await bench.run('verify');
    expect(verified.code).to.equal(1);
    expect(verified.stdout.toString()).to.include(
      `broken: images: image ${image} is incomplete: blob ${digest}`,
    );
  });

  it('lists an image that has lost its name, and removes it by its digest', async () => {
    await bench.run('add', image, '--name', 'moving:1');
    await bench.run('rm', image);
    const other = await bench.registry.fetchManifest('demo/app', '1');
    const changed = Buffer.from(
      Buffer.from(other.bytes).toString().replace(/\}$/, ',"annotations":{"changed":"yes"}}'),
    );
    await bench.registry.pushManifest('demo/app', other.descriptor.mediaType, changed, { tag: 'next' });
    await bench.run('add', `${bench.host}/demo/app:next`, '--name', 'moving:1');
    const { digest } = other.descriptor;
    expect((await bench.run('ls', '--images')).stdout.toString()).to.match(new RegExp(`^- +${digest}`, 'm'));
    expect((await bench.run('rm', digest)).stderr).to.include('removed');
    expect((await bench.run('ls', '--images')).stdout.toString()).not.to.include(digest);
  });

  it('holds a limit that is given with an option or a variable, and refuses junk', async () => {
    const low = await bench.run('--limit', '20', 'ls');
    expect(low.code, 'a forgotten unit does not empty the cache').to.equal(2);
    expect(low.stderr).to.include('unit');
    bench.env.LAYERCACHE_LIMIT = '1kB';
    expect((await bench.run('add', image)).stderr).to.include('1000 bytes');
    bench.env.LAYERCACHE_LIMIT = 'much';
    expect((await bench.run('ls')).code).to.equal(2);
    delete bench.env.LAYERCACHE_LIMIT;
    for (const junk of [
      ['--limit', 'huge', 'ls'],
      ['prune', '--max-size', '10 parsecs'],
      ['prune', '--max-size', '-1'],
      ['prune', '--unused-for', '7'],
      ['prune', '--strategy', 'random'],
    ]) {
      expect((await bench.run(...junk)).code, junk.join(' ')).to.equal(2);
    }
  });

  it('says what it evicts for what it stores, and evicts nothing when it only looks', async () => {
    const [small, large] = ['x', 'y'].map((name) => `${bench.host}/demo/${name}:1`);
    for (const name of ['x', 'y']) {
      const { descriptor, bytes } = await bench.registry.fetchManifest('demo/app', '1');
      const manifest = JSON.parse(Buffer.from(bytes).toString()) as {
        layers: Descriptor[];
        config: Descriptor;
      };
      const blob = randomBytes(130_000);
      const layer = { mediaType: MediaType.layerGzip, digest: digestOf(blob), size: blob.length };
      for (const part of [blob, Buffer.from('{}')])
        await bench.registry.pushBlob(`demo/${name}`, { digest: digestOf(part), size: part.length }, () => [
          part,
        ]);
      const config = {
        mediaType: 'application/vnd.example.config',
        digest: digestOf(Buffer.from('{}')),
        size: 2,
      };
      const text = JSON.stringify({ ...manifest, config, layers: [layer] });
      await bench.registry.pushManifest(`demo/${name}`, descriptor.mediaType, Buffer.from(text), {
        tag: '1',
      });
    }
    await bench.run('add', small!);
    const lsOf = async (): Promise<string> => (await bench.run('ls', '--images')).stdout.toString();
    for (const look of [['ls'], ['stats'], ['verify']]) {
      const seen = await bench.run('--limit', '140kB', ...look);
      expect(seen.stderr, look.join(' ')).not.to.include('evicted');
    }
    expect(await lsOf())
      .to.include(image)
      .and.include(small);
    const added = await bench.run('--limit', '240kB', 'add', large!);
    expect(added.stderr).to.match(/^evicted .+ \(.+\) to stay within the limit$/m);
    expect(await lsOf()).to.include(large);
    const pruned = await bench.run('--limit', '140kB', '--json', 'prune');
    expect((JSON.parse(pruned.stdout.toString()) as PruneReport).items.length).to.be.greaterThan(0);
  });
});

describe('quantities', () => {
  it('are sizes in decimal and binary units', () => {
    const sizes = ['0', '12', '5B', '1kB', '1.5MB', '20GB', '512MiB', '1tib'].map((text) =>
      parseSize(text, '--max-size'),
    );
    expect(sizes).to.deep.equal([0, 12, 5, 1000, 1_500_000, 20e9, 512 * 2 ** 20, 2 ** 40]);
  });

  it('are times', () => {
    const times = ['90s', '5m', '12h', '7d', '4w'].map((text) => parseDuration(text, '--unused-for'));
    expect(times).to.deep.equal([90_000, 300_000, 43_200_000, 604_800_000, 2_419_200_000]);
  });

  it('are nothing else', () => {
    for (const junk of ['', 'GB', '1e3', '-1', '1.GB', '1 GB', '0x10', '1PB', '99999999TB', '10GBs'])
      expect(() => parseSize(junk, '--max-size'), junk).to.throw('--max-size');
    for (const junk of ['', '7', 'd', '1.5d', '7days', '-7d', '1y'])
      expect(() => parseDuration(junk, '--unused-for'), junk).to.throw('--unused-for');
  });
});
