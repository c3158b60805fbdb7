import { readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestHex, type Digest } from '@layercache/oci';
import { Bench } from './program.js';

describe('layercache verify', function () {
  this.timeout(60_000);

  it('checks every step, finds a flipped byte, and repairs it from where the layer came', async () => {
    const bench = await Bench.open();
    try {
      const image = await bench.pushImage();
      await bench.run('add', `${bench.host}/demo/app:1`);
      const clean = await bench.run('verify');
      expect(clean.code, clean.stdout.toString()).to.equal(0);
      for (const step of [
        'layout',
        'index',
        'sizes',
        'digests',
        'pairs',
        'map',
        'journal',
        'orphans',
        'images',
      ]) {
        expect(clean.stdout.toString()).to.match(new RegExp(`^${step} `, 'm'));
      }

      const { digest } = image.layers[0]!.descriptor;
      const file = join(bench.cache, 'blobs', 'sha256', digestHex(digest));
      const bytes = await readFile(file);
      bytes[20] = (bytes[20] ?? 0) ^ 1;
      await writeFile(file, bytes);
      expect((await bench.run('verify')).stdout.toString()).to.match(/^1 corrupted$/m);
      const broken = await bench.run('--json', 'verify');
      expect(broken.code).to.equal(1);
      const report = JSON.parse(broken.stdout.toString()) as { ok: boolean; problems: { digest: Digest }[] };
      expect(report.ok).to.equal(false);
      expect(report.problems.map((problem) => problem.digest)).to.include(digest);

      const repaired = await bench.run('verify', '--repair');
      expect(repaired.code, repaired.stdout.toString()).to.equal(0);
      expect((await bench.run('verify')).code).to.equal(0);
      expect((await bench.run('get', digest)).code).to.equal(0);
    } finally {
      await bench.close();
    }
  });

  it('takes up a blob that lost its entry', async () => {
    const bench = await Bench.open();
    try {
      await bench.pushImage();
      await bench.run('add', `${bench.host}/demo/app:1`);
      const orphan = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
      const file = join(bench.cache, 'blobs', 'sha256', orphan);
      await writeFile(file, 'abc');
      const old = new Date(Date.now() - 86_400_000);
      await utimes(file, old, old);
      expect((await bench.run('has', `sha256:${orphan}`)).code).to.equal(3);
      expect((await bench.run('verify', '--repair')).code).to.equal(0);
      expect((await bench.run('has', `sha256:${orphan}`)).code).to.equal(0);
    } finally {
      await bench.close();
    }
  });
});
