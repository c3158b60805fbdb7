import { expect } from 'chai';
import type { MadeImage } from '../src/demo/make-image.js';
import { Bench } from './program.js';

interface ListedFile {
  readonly path: string;
  readonly claimed?: boolean;
}

describe('what a shared cache says', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let image: MadeImage;
  let name: string;
  let target: string;
  before(async () => {
    bench = await Bench.open();
    image = await bench.pushImage();
    name = `${bench.host}/demo/app:1`;
    target = `${bench.host}/team/cache:main`;
    expect((await bench.run('add', name)).code).to.equal(0);
    expect((await bench.run('index', name)).code).to.equal(0);
    expect((await bench.run('add', name, '--name', 'registry.invalid/app:1')).code).to.equal(0);
    expect((await bench.run('push', target)).code).to.equal(0);
  });
  after(() => bench.close());

  const inOther = (...args: string[]): ReturnType<Bench['run']> =>
    bench.run('--cache', `${bench.dir}/other`, ...args);
  const json = async <T>(...args: string[]): Promise<T> =>
    JSON.parse((await inOther('--json', ...args)).stdout.toString()) as T;

  it('of names is a claim where their registry does not confirm it, and ls shows which', async () => {
    const pulled = await inOther('pull', '--lazy', target);
    expect(pulled.code, pulled.stderr).to.equal(0);
    expect(pulled.stderr).to.contain('1 name not confirmed by a registry');
    const { images } = await json<{ images: { name: string; claimed: boolean }[] }>('ls', '--images');
    expect(images.map((each) => [each.name, each.claimed])).to.deep.equal([
      [name, false],
      ['registry.invalid/app:1', true],
    ]);
    const listed = (await inOther('ls', '--images')).stdout.toString();
    expect(listed)
      .to.match(/registry\.invalid\/app:1 +sha256:\S+ +claimed\n/)
      .and.match(/demo\/app:1 +sha256:\S+\n/);
    expect(await json('inspect', 'registry.invalid/app:1')).to.include({ claimed: true });
  });

  it('is said on stderr in one line when an image is handed out by a claimed name', async () => {
    const line = /^warn: registry\.invalid\/app:1 is a claimed name: .*$/m;
    for (const args of [
      ['cat', 'registry.invalid/app:1', '/app/node_modules/one/data'],
      ['export', 'registry.invalid/app:1', '--to', `oci:${bench.dir}/out`],
    ]) {
      const run = await inOther(...args);
      expect(run.code, run.stderr).to.equal(0);
      expect(run.stderr).to.match(line);
    }
    expect((await inOther('files', name)).stderr).not.to.match(line);
  });

  it('of files is marked as claimed while the layers are not here, and not once they are', async () => {
    expect((await inOther('rm', 'nothing:1')).code).to.equal(0);
    const lazy = (...args: string[]): ReturnType<Bench['run']> =>
      bench.run('--cache', `${bench.dir}/lazy`, ...args);
    expect((await lazy('pull', '--lazy', target)).code).to.equal(0);
    const claimed = await lazy('files', name);
    expect(claimed.stderr.match(/^warn: claimed: /gm)).to.have.length(1);
    const files = JSON.parse((await lazy('--json', 'files', name)).stdout.toString()) as ListedFile[];
    expect(files.find(({ path }) => path === '/app/node_modules/one/data')?.claimed).to.equal(true);
    expect((await lazy('cat', name, '/app/node_modules/two/data')).stderr).to.contain('warn: claimed: ');
    for (const { descriptor } of image.layers)
      expect((await lazy('get', descriptor.digest)).code).to.equal(0);
    const proven = await lazy('--json', 'files', name);
    expect(proven.stderr).to.equal('');
    expect((JSON.parse(proven.stdout.toString()) as ListedFile[]).some((file) => 'claimed' in file)).to.equal(
      false,
    );
    expect(proven.stdout.toString()).to.contain('/app/node_modules/one/data');
  });

  it('does not change what a name means here: pull says both, and exits 0', async () => {
    const other = ['--cache', `${bench.dir}/third`];
    const before = image.layers[0]?.descriptor.digest ?? '';
    expect((await bench.run(...other, 'add', name)).code).to.equal(0);
    expect((await bench.run(...other, 'add', name, '--name', 'registry.invalid/app:1')).code).to.equal(0);
    const changed = await bench.pushImage(5000);
    expect(changed.layers[0]?.descriptor.digest).not.to.equal(before);
    expect((await bench.run('add', name)).code).to.equal(0);
    expect((await bench.run('push', target)).code).to.equal(0);
    const pulled = await bench.run(...other, 'pull', target);
    expect(pulled.code, pulled.stderr).to.equal(0);
    expect(pulled.stderr).to.match(
      new RegExp(`warn: ${name} keeps its meaning here, sha256:\\S+; the cache there has sha256:`),
    );
  });

  it('is refused by name with exit 2, and the cache stays as it was', async () => {
    for (const reserved of ['layercache', image.layers[0]?.descriptor.digest ?? '']) {
      const run = await bench.run('add', name, '--name', reserved);
      expect(run.code).to.equal(2);
      expect(run.stderr).to.contain('cannot be the name of an image').and.contain(reserved);
    }
  });
});
