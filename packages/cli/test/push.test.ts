import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';

interface Pushed {
  readonly dryRun: boolean;
  readonly sent: { readonly blobs: number };
  readonly removed: number;
  readonly entries: number;
  readonly images: number;
}

describe('layercache push', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let target: string;
  before(async () => {
    bench = await Bench.open();
    await bench.pushImage();
    target = `${bench.host}/team/cache:main`;
    expect((await bench.run('add', `${bench.host}/demo/app:1`)).code).to.equal(0);
  });
  after(() => bench.close());

  const pushed = async (...args: string[]): Promise<Pushed> => {
    const { code, stdout, stderr } = await bench.run('--json', 'push', target, ...args);
    expect(code, stderr).to.equal(0);
    return JSON.parse(stdout.toString()) as Pushed;
  };

  it('--dry-run says what would be sent, and leaves the registry as it was', async () => {
    const result = await pushed('--dry-run');
    expect(result).to.deep.include({ dryRun: true, entries: 2, images: 1 });
    expect((await bench.run('pull', target)).code).to.equal(3);
  });

  it('prints what was sent, mounted and skipped, and what stands there now', async () => {
    const first = await bench.run('push', target);
    expect(first.code, first.stderr).to.equal(0);
    expect(first.stderr).to.match(/^\d blobs? sent \(.*\), \d mounted, 0 skipped/);
    expect(first.stdout.toString()).to.match(/^127\.0\.0\.1:\d+\/team\/cache:main@sha256:[0-9a-f]{64}\n$/);
    const again = await bench.run('push', target);
    expect(again.stderr)
      .to.contain('0 blobs sent')
      .and.to.contain('2 skipped (2 listed there, 0 found there)');
    expect(again.stdout.toString()).to.equal(first.stdout.toString());
  });

  it('sends a selection by image, time or size', async () => {
    const nothing = ['--since', '2100-01-01'];
    expect((await pushed('--dry-run', ...nothing)).sent.blobs).to.equal(0);
    const elsewhere = `${bench.host}/team/selected:main`;
    const run = async (...args: string[]): Promise<Pushed> =>
      JSON.parse(
        (await bench.run('--json', 'push', elsewhere, '--dry-run', ...args)).stdout.toString(),
      ) as Pushed;
    expect((await run('--images', `${bench.host}/demo/app:1`)).entries).to.equal(2);
    expect((await run('--since', '7d')).entries).to.equal(2);
    expect((await run('--max-size', '10B')).entries).to.equal(0);
    expect((await run('--max-size', '1GB')).entries).to.equal(2);
  });

  it('--prune needs --yes where nobody can be asked', async () => {
    const archive = `docker-archive:${join(bench.dir, 'second.tar')}`;
    await bench.run('export', `${bench.host}/demo/app:1`, '--to', archive);
    await bench.run('add', archive, '--name', 'second:1');
    await pushed();
    const onlyFirst = ['--prune', '--images', `${bench.host}/demo/app:1`];
    const refused = await bench.run('push', target, ...onlyFirst);
    expect(refused.code).to.equal(2);
    expect(refused.stderr).to.contain('--yes');
    expect((await pushed(...onlyFirst, '--dry-run')).removed).to.equal(1);
    expect((await pushed(...onlyFirst, '--yes')).removed).to.equal(1);
    expect((await pushed(...onlyFirst, '--yes')).removed).to.equal(0);
  });

  it('--prune never empties the cache there', async () => {
    const refused = await bench.run('push', target, '--prune', '--max-size', '10B', '--yes');
    expect(refused.code).to.equal(2);
    expect(refused.stderr).to.contain('would empty');
    expect((await pushed('--dry-run')).entries).to.equal(2);
  });

  it('refuses times and sizes that are none', async () => {
    for (const args of [
      ['--since', 'yesterday-ish'],
      ['--max-size', 'huge'],
    ]) {
      const { code, stderr } = await bench.run('push', target, ...args);
      expect(code).to.equal(2);
      expect(stderr).to.contain(args.join(' '));
    }
  });
});
