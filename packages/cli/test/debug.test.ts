import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';

describe('layercache debug', function () {
  this.timeout(60_000);
  let bench: Bench;
  beforeEach(async () => {
    bench = await Bench.open();
    await bench.pushImage();
    await bench.run('add', `${bench.host}/demo/app:1`);
  });
  afterEach(() => bench.close());

  it('exports one JSON for a bug report, to a file or to stdout', async () => {
    const file = join(bench.dir, 'report.json');
    const written = await bench.run('debug', 'export', '-o', file);
    expect(written.code, written.stderr).to.equal(0);
    expect(written.stderr).to.contain('read it before you send it');
    const report = JSON.parse(await readFile(file, 'utf8')) as unknown;
    expect(report).to.have.nested.property('verify.ok', true);
    expect(report).to.have.nested.property('stats.dir', '~/cache');

    const { stdout } = await bench.run('debug', 'export', '--no-verify');
    expect(JSON.parse(stdout.toString())).to.have.property('verify', 'not asked for');
  });

  it('shows the files of the index, and compacts them', async () => {
    const shown = (await bench.run('debug', 'index')).stdout.toString();
    expect(shown).to.match(/^index\.json +\S+ kB +5 entries, 2 names$/m);
    const compacted = await bench.run('--json', 'debug', 'compact');
    expect(JSON.parse(compacted.stdout.toString())).to.have.nested.property('journal.changes', 0);
  });

  it('refuses what it does not know', async () => {
    expect((await bench.run('debug', 'everything')).code).to.equal(2);
  });
});
