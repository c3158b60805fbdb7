import { execFileSync } from 'node:child_process';
import { lstat, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { commands } from '../src/commands/index.js';
import type { MadeImage } from '../src/demo/make-image.js';
import { Bench, finished, firstLine } from './program.js';

describe('the command line', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let image: MadeImage;
  let name: string;
  before(async () => {
    bench = await Bench.open();
    image = await bench.pushImage();
    name = `${bench.host}/demo/app:1`;
    const added = await bench.run('add', name);
    expect(added.code, added.stderr).to.equal(0);
  });
  after(() => bench.close());

  const layer = (): MadeImage['layers'][number] => image.layers[0]!;

  it('add says what came and what was here, and fetches nothing twice', async () => {
    const again = await bench.run('add', name);
    expect(again.code).to.equal(0);
    expect(again.stdout.toString()).to.match(/2 layers, 0 B fetched, [\d.]+ k?B already here\n$/);
    const json = JSON.parse((await bench.run('--json', 'add', name)).stdout.toString()) as unknown;
    expect(json).to.deep.equal([
      {
        name,
        digest: image.digest,
        layers: image.layers.map((each) => each.descriptor.digest),
        fetched: 0,
        reused: (json as { reused: number }[])[0]?.reused,
        skipped: [],
      },
    ]);
  });

  it('get writes the form that the key names, and the other when asked', async () => {
    const { descriptor, diffID } = layer();
    const compressed = await bench.run('get', descriptor.digest);
    expect(digestOf(compressed.stdout)).to.equal(descriptor.digest);
    const tar = await bench.run('get', diffID);
    expect(digestOf(tar.stdout)).to.equal(diffID);
    expect(digestOf((await bench.run('get', diffID, '--form', 'compressed')).stdout)).to.equal(
      descriptor.digest,
    );
    expect(digestOf((await bench.run('get', descriptor.digest, '--form', 'uncompressed')).stdout)).to.equal(
      diffID,
    );
    const file = join(bench.dir, 'layer.tar');
    expect((await bench.run('get', diffID, '-o', file)).stdout.length).to.equal(0);
    expect(digestOf(await readFile(file))).to.equal(diffID);
  });

  it('get writes through links and into pipes, and replaces neither', async () => {
    const { diffID } = layer();
    const [file, link, pipe] = ['target', 'link', 'pipe'].map((each) => join(bench.dir, each)) as [
      string,
      string,
      string,
    ];
    await writeFile(file, 'before');
    await symlink(file, link);
    expect((await bench.run('get', diffID, '-o', link)).code).to.equal(0);
    expect((await lstat(link)).isSymbolicLink()).to.equal(true);
    expect(digestOf(await readFile(file))).to.equal(diffID);
    execFileSync('mkfifo', [pipe]);
    const [written, read] = await Promise.all([bench.run('get', diffID, '-o', pipe), readFile(pipe)]);
    expect(written.code, written.stderr).to.equal(0);
    expect(digestOf(read)).to.equal(diffID);
    expect((await lstat(pipe)).isFIFO()).to.equal(true);
  });

  it('get of a manifest or config writes its bytes', async () => {
    const { stdout, code } = await bench.run('get', image.digest);
    expect(code).to.equal(0);
    expect(digestOf(stdout)).to.equal(image.digest);
  });

  it('resolve tells one name from the other', async () => {
    const { descriptor, diffID } = layer();
    const text = await bench.run('resolve', descriptor.digest);
    expect(text.stdout.toString()).to.contain(diffID);
    const json = JSON.parse((await bench.run('--json', 'resolve', diffID)).stdout.toString()) as {
      digests: string[];
    };
    expect(json.digests).to.deep.equal([descriptor.digest]);
  });

  it('has answers by exit code alone', async () => {
    const yes = await bench.run('has', layer().diffID);
    expect([yes.code, yes.stdout.length, yes.stderr]).to.deep.equal([0, 0, '']);
    const no = await bench.run('has', digestOf('nobody'));
    expect([no.code, no.stdout.length, no.stderr]).to.deep.equal([3, 0, '']);
    const json = await bench.run('--json', 'has', digestOf('nobody'));
    expect(JSON.parse(json.stdout.toString())).to.deep.equal({ key: digestOf('nobody'), found: false });
  });

  it('ls lists images and layers, or only one of the two', async () => {
    const all = (await bench.run('ls')).stdout.toString();
    expect(all).to.contain(name).and.to.contain('DIFFID');
    expect((await bench.run('ls', '--images')).stdout.toString()).not.to.contain('DIFFID');
    const json = JSON.parse((await bench.run('--json', 'ls')).stdout.toString()) as {
      images: { name: string }[];
      layers: { diffID: string }[];
    };
    expect(json.images.map((each) => each.name)).to.deep.equal([name]);
    expect(json.layers.map((each) => each.diffID)).to.have.members(image.layers.map((each) => each.diffID));
  });

  it('inspect shows images, layers and other blobs', async () => {
    const inspect = async (what: string): Promise<{ kind: string }> =>
      JSON.parse((await bench.run('inspect', what)).stdout.toString()) as { kind: string };
    expect(await inspect(name)).to.include({ kind: 'image', digest: image.digest });
    expect(await inspect(layer().diffID)).to.include({ kind: 'layer', diffID: layer().diffID });
    const manifest = (await inspect(name)) as unknown as { manifest: { config: { digest: string } } };
    expect(await inspect(manifest.manifest.config.digest)).to.include({ kind: 'blob' });
  });

  it('push and pull move the whole cache to another machine', async () => {
    const target = `${bench.host}/team/cache:main`;
    const pushed = await bench.run('push', target);
    expect(pushed.code, pushed.stderr).to.equal(0);
    expect(pushed.stdout.toString()).to.match(/team\/cache:main@sha256:[0-9a-f]{64}\n$/);
    const other = join(bench.dir, 'other');
    const pulled = await bench.run('--cache', other, 'pull', target);
    expect(pulled.code, pulled.stderr).to.equal(0);
    const tar = await bench.run('--cache', other, 'get', layer().diffID);
    expect(digestOf(tar.stdout)).to.equal(layer().diffID);
  });

  it('export hands an image to other tools, and add takes it back', async () => {
    for (const transport of ['oci', 'oci-archive', 'docker-archive']) {
      const place = `${transport}:${join(bench.dir, `exported-${transport}`)}`;
      const exported = await bench.run('export', name, '--to', place);
      expect(exported.code, exported.stderr).to.equal(0);
      const other = join(bench.dir, `from-${transport}`);
      const added = await bench.run('--cache', other, 'add', place);
      expect(added.code, added.stderr).to.equal(0);
      expect((await bench.run('--cache', other, 'has', layer().diffID)).code).to.equal(0);
    }
  });

  it('serve is a registry to read from and to write to, until it is stopped', async () => {
    const server = bench.start('serve', '--listen', '127.0.0.1:0');
    const done = finished(server);
    try {
      const url = await firstLine(server);
      const { diffID } = layer();
      const blob = await fetch(`${url}/v2/any/blobs/${diffID}`);
      expect(digestOf(new Uint8Array(await blob.arrayBuffer()))).to.equal(diffID);
      const host = new URL(url).host;
      const second = await bench.run('--cache', join(bench.dir, 'via-serve'), 'add', `${host}/demo/app:1`);
      expect(second.code, second.stderr).to.equal(0);
      const pushed = await bench.run('--cache', join(bench.dir, 'via-serve'), 'push', `${host}/team/cache:x`);
      expect(pushed.code, pushed.stderr).to.equal(0);
    } finally {
      server.kill('SIGTERM');
    }
    expect((await done).code).to.equal(0);
  });

  describe('says what went wrong in one line, with an exit code for it', () => {
    const cases: [string, string[], number, RegExp][] = [
      ['a digest that is none', ['get', '-o', '/dev/null', 'sha256:../../x'], 2, /sha256:\.\.\/\.\.\/x/],
      ['a layer that is not there', ['resolve', digestOf('nobody')], 3, /nobody|no layer/],
      ['an image that is not there', ['export', 'nobody:1', '--to', 'oci:x'], 3, /no image "nobody:1"/],
      ['a place that is none', ['export', 'x', '--to', 'nowhere'], 3, /no image/],
      ['a reference that is none', ['add', 'UPPER'], 2, /lower case/],
      ['a platform that is none', ['add', 'x', '--platform', 'linux'], 2, /os\/arch/],
      ['a registry that is not there', ['add', '127.0.0.1:1/x:1'], 1, /127\.0\.0\.1:1/],
      ['an address that is none', ['serve', '--listen', 'here'], 2, /HOST:PORT/],
    ];
    for (const [what, args, code, message] of cases) {
      it(what, async () => {
        // What is tried again is said at a lower level.
        const failed = await bench.run('--log-level', 'error', ...args);
        expect(failed.code, failed.stderr).to.equal(code);
        expect(failed.stderr).to.match(message);
        expect(failed.stderr.trimEnd().split('\n')).to.have.length(1);
        expect(failed.stdout.length).to.equal(0);
        const json = await bench.run('--json', '--log-level', 'error', ...args);
        const { error } = JSON.parse(json.stderr) as { error: { code: string; message: string } };
        expect(error.code).to.match(/^[A-Z_]+$/);
        expect(error.message).to.match(message);
      });
    }

    it('a command or option that does not exist', async () => {
      for (const args of [['frobnicate'], ['ls', '--frobnicate'], ['get'], ['--log-level', 'loud', 'ls']]) {
        expect((await bench.run(...args)).code).to.equal(2);
      }
    });

    it('a folder that is something else', async () => {
      await writeFile(join(bench.dir, 'files', 'notes'), 'mine');
      const failed = await bench.run('--cache', join(bench.dir, 'files'), 'add', name);
      expect(failed.code).to.equal(1);
      expect(failed.stderr).to.contain(join(bench.dir, 'files'));
    });

    it('a cache that is not there, for a command that only looks', async () => {
      const failed = await bench.run('--cache', join(bench.dir, 'nowhere'), 'ls');
      expect(failed.code).to.equal(3);
      expect((await bench.run('--cache', join(bench.dir, 'nowhere'), 'has', layer().diffID)).code).to.equal(
        3,
      );
    });
  });

  it('helps with every command, and shows an example of it', async () => {
    const help = (await bench.run('--help')).stdout.toString();
    for (const module of commands) {
      const { Command } = await import('commander');
      const command = module.register(new Command());
      expect(help).to.contain(`  ${command.name()}`);
      const own = await bench.run(command.name(), '--help');
      expect(own.code).to.equal(0);
      expect(own.stdout.toString()).to.match(/Example:\n {2}\$ layercache /);
    }
    expect((await bench.run('--version')).stdout.toString()).to.match(/^\d+\.\d+\.\d+\n$/);
  });

  it('keeps quiet when told to, and prints no bars into a pipe', async () => {
    const added = await bench.run('--quiet', '--cache', join(bench.dir, 'quiet'), 'add', name);
    expect(added.stderr).to.equal('');
    expect(added.stdout.toString()).not.to.contain('\r');
  });

  it('logs what it does when asked, as fields', async () => {
    const added = await bench.run('--json', '--log-level', 'info', 'add', name);
    const line = JSON.parse(added.stderr.split('\n')[0] ?? '') as { level: string; message: string };
    expect(line.level).to.equal('info');
  });
});
