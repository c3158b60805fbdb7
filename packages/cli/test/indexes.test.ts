import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Bench } from './program.js';
import { pushLayers, type PushedLayer } from './layered-image.js';

const BINARY = Uint8Array.from({ length: 200_000 }, (_, index) => (index * 7919) >> 5);

const BASE = {
  'etc/': { type: 'Directory', mode: 0o755 },
  'etc/hostname': 'base\n',
  'bin/tool': BINARY,
  old: 'goes',
  link: { type: 'SymbolicLink', linkpath: 'bin/tool' },
} as const;
const TOP = { '.wh.old': '', 'etc/hostname': 'topmost\n', 'etc/new': 'new', pipe: { type: 'FIFO' } } as const;
/** As TOP, made again: the same files in another layer. */
const REBUILT = { 'etc/added': 'added!', 'etc/hostname': 'TOPMOST\n', 'etc/new': 'new', '.wh.link': '' };

describe('the commands that look into layers', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let layers: PushedLayer[];
  let image: string;
  let other: string;

  before(async () => {
    bench = await Bench.open();
    layers = await pushLayers(bench.registry, 'demo/app', '1', [BASE, TOP]);
    await pushLayers(bench.registry, 'demo/app', '2', [BASE, REBUILT]);
    image = `${bench.host}/demo/app:1`;
    other = `${bench.host}/demo/app:2`;
    for (const name of [image, other]) expect((await bench.run('add', name)).code).to.equal(0);
  });
  after(() => bench.close());

  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await bench.run(...args);
    expect(code, stderr).to.equal(0);
    return stdout.toString();
  };
  const json = async (...args: string[]): Promise<unknown> =>
    JSON.parse(await run('--json', ...args)) as unknown;

  it('index says what it starts, then what it found, and reads nothing the second time', async () => {
    const size = layers.reduce((sum, layer) => sum + layer.size, 0);
    const cold = await run('index', image);
    expect(cold).to.match(
      new RegExp(`^indexing ${image}\n2 layers, 0 cache hits, 9 files, [\\d.]+ k?B read, [\\d.]+ m?s\n$`),
    );
    expect(await run('index', image)).to.match(/\n2 layers, 2 cache hits, 9 files, 0 B read, .* m?s\n$/);
    const cache = join(bench.dir, 'for-json');
    await run('--cache', cache, 'add', image);
    expect(await json('--cache', cache, 'index', image)).to.deep.include({
      hits: 0,
      files: 9,
      bytesRead: size,
    });
  });

  it('index takes a layer by digest or diffID', async () => {
    for (const name of [layers[0]!.digest, layers[0]!.diffID]) {
      const report = (await json('index', name)) as { layers: { diffID: string }[] };
      expect(report.layers.map(({ diffID }) => diffID)).to.deep.equal([layers[0]!.diffID]);
    }
  });

  it('takes the platform that is said, and none that is no platform', async () => {
    expect((await bench.run('index', image, '--platform', 'linux')).code).to.equal(2);
    expect((await bench.run('files', image, '--platform', 'linux/amd64')).code).to.equal(0);
  });

  it('files lists the merged image, as text, JSON or mtree', async () => {
    const text = await run('files', image);
    expect(text.split('\n').map((line) => line.split(' ').slice(-1)[0])).to.deep.equal([
      '/',
      '/bin',
      '/bin/tool',
      '/etc',
      '/etc/hostname',
      '/etc/new',
      'bin/tool',
      '/pipe',
      '',
    ]);
    const listed = JSON.parse(await run('files', image, '--format', 'json')) as { path: string }[];
    expect(listed.find(({ path }) => path === '/etc/hostname')).to.deep.include({ size: 8, layer: 1 });
    expect(await json('files', image)).to.deep.equal(listed);
    expect(await run('files', image, '--format', 'mtree')).to.match(/^#mtree v2.0\n\. type=dir /);
  });

  it('files counts what the layers leave to interpretation, and the log says what it is', async () => {
    const { stderr } = await bench.run('files', image);
    expect(stderr).to.match(/^1 note on what the layers leave to interpretation: /);
    const logged = await bench.run('--json', '--log-level', 'info', 'files', image);
    const lines = logged.stderr.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).to.deep.include({
      level: 'info',
      message: 'parent implied',
      layer: 0,
      name: 'bin',
    });
  });

  it('files of a layer are those it brings alone', async () => {
    const listed = (await json('files', layers[1]!.diffID)) as { path: string }[];
    expect(listed.map(({ path }) => path)).to.deep.equal(['/', '/etc', '/etc/hostname', '/etc/new', '/pipe']);
  });

  it('cat writes the bytes of a file, whatever they are, and through symlinks', async () => {
    for (const path of ['/bin/tool', 'bin/tool', '/link']) {
      const { stdout, code } = await bench.run('cat', image, path);
      expect(code).to.equal(0);
      expect(stdout.equals(BINARY)).to.equal(true);
    }
    expect(await run('cat', image, '/etc/hostname')).to.equal('topmost\n');
  });

  it('cat says what is not there, or is no file', async () => {
    const missing = await bench.run('cat', image, '/old');
    expect([missing.code, missing.stdout.length]).to.deep.equal([3, 0]);
    expect(missing.stderr).to.match(/^layercache: there is no "\/old" in .*\n$/);
    expect((await bench.run('cat', image, '/etc')).code).to.equal(2);
    expect((await bench.run('cat', 'nobody:1', '/etc')).code).to.equal(3);
  });

  it('cat ends in peace when its reader has seen enough', async () => {
    const child = bench.start('cat', image, '/bin/tool');
    child.stdout.once('data', () => child.stdout.destroy());
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect(code).to.equal(0);
  });

  it('extract writes the files, and says what it left out', async () => {
    const dir = join(bench.dir, 'rootfs');
    const text = await run('extract', image, dir);
    expect(text)
      .to.match(/rootfs {2}7 names, 200 kB\n/)
      .and.to.contain('left out: /pipe: a device or FIFO\n');
    expect((await readdir(dir)).sort()).to.deep.equal(['bin', 'etc', 'link']);
    expect((await readFile(join(dir, 'bin/tool'))).equals(BINARY)).to.equal(true);
    const report = await json('extract', image, join(bench.dir, 'rootfs-json'));
    expect(report).to.deep.include({
      names: 7,
      skipped: ['pipe'],
      notes: [{ kind: 'parent implied', layer: 0, name: 'bin' }],
    });
  });

  it('extract takes no folder with something in it', async () => {
    const dir = join(bench.dir, 'taken');
    await mkdir(dir);
    await writeFile(join(dir, 'mine'), 'mine');
    const refused = await bench.run('extract', image, dir);
    expect(refused.code).to.equal(2);
    expect(await readdir(dir)).to.deep.equal(['mine']);
  });

  it('diff lists what is added, removed and changed, with sizes', async () => {
    expect(await run('diff', image, other)).to.equal(
      [
        '+               6 B  /etc/added',
        '~      8 B      8 B  /etc/hostname  (content)',
        '-  symlink           /link',
        '+               4 B  /old',
        '-     fifo           /pipe',
        '',
      ].join('\n'),
    );
    expect(await json('diff', image, other)).to.deep.include.members([
      { kind: 'added', path: '/etc/added', after: { type: 'reg', size: 6 } },
      {
        kind: 'changed',
        path: '/etc/hostname',
        before: { type: 'reg', size: 8 },
        after: { type: 'reg', size: 8 },
        aspects: ['content'],
      },
    ]);
    expect(await run('diff', image, image)).to.equal('');
    expect(await json('diff', image, image)).to.deep.equal([]);
  });

  it('export --soci puts a SOCI index beside the image', async () => {
    const dir = join(bench.dir, 'soci');
    await run('export', image, '--to', `oci:${dir}:app`, '--soci');
    const { manifests } = JSON.parse(await readFile(join(dir, 'index.json'), 'utf8')) as {
      manifests: { digest: string; annotations?: Record<string, string> }[];
    };
    const documents = await Promise.all(
      manifests.map(async ({ digest }) => {
        const text = await readFile(join(dir, 'blobs/sha256', digest.slice(7)), 'utf8');
        return JSON.parse(text) as { subject?: { digest: string }; layers: { mediaType: string }[] };
      }),
    );
    const soci = documents.find(({ subject }) => subject !== undefined);
    const app = manifests.find(
      ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === 'app',
    );
    expect(soci?.subject?.digest).to.equal(app?.digest);
    expect(soci?.layers.map(({ mediaType }) => mediaType)).to.deep.equal([
      'application/octet-stream',
      'application/octet-stream',
    ]);
  });
});
