import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';

describe('layercache demo', function () {
  this.timeout(120_000);

  it('shows the main job, and what it says is what its numbers say', async () => {
    const bench = await Bench.open();
    try {
      const dir = join(bench.dir, 'demo');
      const { code, stdout, stderr } = await bench.run('--json', 'demo', '--dir', dir);
      expect(code, stderr).to.equal(0);
      const report = JSON.parse(stdout.toString()) as {
        image: { layers: number; compressed: number; uncompressed: number };
        add: { networkBytes: number };
        addAgain: { networkBytes: number };
        pull: { networkBytes: number };
      };
      expect(report.image.layers).to.equal(4);
      expect(report.image.uncompressed).to.be.greaterThan(10_000_000);
      expect(report.add.networkBytes).to.be.within(report.image.compressed, report.image.compressed + 10_000);
      expect(report.addAgain.networkBytes).to.equal(0);
      expect(report.pull.networkBytes).to.be.within(
        report.image.compressed,
        report.image.compressed + 20_000,
      );
      const list = await bench.run('--cache', join(dir, 'second'), 'ls', '--images');
      expect(list.stdout.toString()).to.contain('registry.example/demo/app:1');
    } finally {
      await bench.close();
    }
  });
});
