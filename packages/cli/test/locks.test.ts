import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';

/** Has the program run as on a platform for which these packages have no binary. */
async function without(bench: Bench, ...packages: string[]): Promise<void> {
  const hook = join(bench.dir, `without-${packages.length}.cjs`);
  await writeFile(
    hook,
    `const Module = require('node:module');
    const load = Module._load;
    Module._load = function (name, ...rest) {
      if (${JSON.stringify(packages)}.includes(name)) throw new Error('no binary of ' + name);
      return load.call(this, name, ...rest);
    };`,
  );
  bench.env.NODE_OPTIONS = `--require ${hook}`;
}

describe('layercache on a platform', function () {
  this.timeout(60_000);

  it('without a binary of the first package for locks does everything', async () => {
    const bench = await Bench.open();
    try {
      await bench.pushImage();
      await without(bench, 'fs-native-extensions');
      const added = await bench.run('add', `${bench.host}/demo/app:1`);
      expect(added.code, added.stderr).to.equal(0);
      expect((await bench.run('verify')).code).to.equal(0);
    } finally {
      await bench.close();
    }
  });

  it('without any lock reads, and says in one line why it does not write', async () => {
    const bench = await Bench.open();
    try {
      await bench.pushImage();
      await bench.run('add', `${bench.host}/demo/app:1`);
      await without(bench, 'fs-native-extensions', 'koffi');
      expect((await bench.run('--version')).code).to.equal(0);
      const listed = await bench.run('ls');
      expect(listed.code, listed.stderr).to.equal(0);
      expect(listed.stdout.toString()).to.contain('demo/app:1');
      const tagged = await bench.run('add', `${bench.host}/demo/app:1`, '--name', 'other:1');
      expect(tagged.code).to.equal(1);
      expect(tagged.stderr).to.contain('no lock can be taken').and.not.to.contain('    at ');
    } finally {
      await bench.close();
    }
  });
});
