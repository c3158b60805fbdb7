import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';

describe('layercache stats', function () {
  this.timeout(60_000);

  it('prints what images need, share and take, and the same as JSON', async () => {
    const bench = await Bench.open();
    try {
      const image = await bench.pushImage();
      await bench.run('add', `${bench.host}/demo/app:1`);
      const text = (await bench.run('stats')).stdout.toString();
      expect(text).to.match(/on disk: \d+ blobs of /);
      expect(text).to.contain('2 layers: 0 proven, 2 claimed, 0 with one name only');
      expect(text).to.match(new RegExp(` 2 +this hour +${bench.host}/demo/app:1$`, 'm'));
      expect(text).to.match(/^compressed layer +2 /m);

      const { code, stdout } = await bench.run('--json', 'stats');
      expect(code).to.equal(0);
      const stats = JSON.parse(stdout.toString()) as {
        readonly pairs: unknown;
        readonly kinds: readonly { readonly kind: string; readonly size: number }[];
      };
      expect(stats.pairs).to.deep.equal({ proven: 0, claimed: 2, unpaired: 0 });
      const layers = image.layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
      expect(stats.kinds.find(({ kind }) => kind === 'compressed layer')?.size).to.equal(layers);
    } finally {
      await bench.close();
    }
  });

  it('writes a page beside what it prints', async () => {
    const bench = await Bench.open();
    try {
      await bench.pushImage();
      await bench.run('add', `${bench.host}/demo/app:1`);
      const file = join(bench.dir, 'report.html');
      const { code, stdout, stderr } = await bench.run('stats', '--html', file);
      expect(code, stderr).to.equal(0);
      expect(stdout.toString()).to.contain(' on disk: ');
      const page = await readFile(file, 'utf8');
      expect(page)
        .to.match(/^<!doctype html>/)
        .and.to.contain(`${bench.host}/demo/app:1`);
    } finally {
      await bench.close();
    }
  });

  it('says that there is no cache instead of making one', async () => {
    const bench = await Bench.open();
    try {
      expect((await bench.run('stats')).code).to.equal(3);
    } finally {
      await bench.close();
    }
  });
});
