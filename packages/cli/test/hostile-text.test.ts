import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { MediaType, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { pushLayers } from './layered-image.js';
import { Bench, type Finished } from './program.js';

/** It writes the clipboard, clears the screen, reverses what follows, and hides. */
const EVIL = '\u001b]52;c;ZXZpbA==\u0007\u001b[2J\u009b2J\u202e\u200b\r\u007f';
/** The start of it, as text and as JSON show it. */
const SHOWN = String.raw`\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b2J\u202e\u200b`;
const SHOWN_JSON = String.raw`\u001b]52;c;ZXZpbA==\u0007\u001b[2J\u009b2J\u202e\u200b`;
const OBEYED = /[\p{Cc}\p{Cf}\p{Cs}]/u;

function expectPlain({ stdout, stderr }: Finished, what: string): string {
  const text = `${stdout.toString('utf8')}${stderr}`;
  expect(text.replaceAll('\n', ''), what).not.to.match(OBEYED);
  return text;
}

describe('what a terminal would obey', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let image: string;
  let refusing: Server;
  let refusingHost: string;

  before(async () => {
    bench = await Bench.open();
    await pushLayers(bench.registry, 'demo/app', '1', [{ [`etc/${EVIL}`]: `raw ${EVIL}`, plain: 'x' }]);
    await pushLayers(bench.registry, 'demo/app', '2', [{ [`etc/${EVIL}2`]: 'other' }]);
    image = `${bench.host}/demo/app:1`;
    for (const name of [image, `${bench.host}/demo/app:2`]) {
      const added = await bench.run('add', name);
      expect(added.code, added.stderr).to.equal(0);
    }
    const body = JSON.stringify({ errors: [{ code: 'DENIED', message: `no ${EVIL} entry` }] });
    refusing = createServer((request, response) => {
      request.resume();
      response.writeHead(403, { 'content-type': 'application/json' }).end(body);
    });
    await new Promise<void>((resolve) => refusing.listen(0, '127.0.0.1', resolve));
    refusingHost = `127.0.0.1:${(refusing.address() as AddressInfo).port}`;
  });
  after(async () => {
    refusing.closeAllConnections();
    refusing.close();
    await bench.close();
  });

  it('is escaped in a registry’s message', async () => {
    const seen = await bench.run('push', `${refusingHost}/team/cache:1`);
    expect(seen.code).to.equal(1);
    expect(expectPlain(seen, 'push')).to.include(`no ${SHOWN}`);
  });

  it('is escaped in a registry’s message as JSON, which means the same', async () => {
    const seen = await bench.run('--json', 'pull', `${refusingHost}/team/cache:1`);
    expect(seen.code).to.equal(1);
    expect(expectPlain(seen, 'pull')).to.include(`no ${SHOWN_JSON}`);
    const { error } = JSON.parse(seen.stderr.trim()) as { error: { message: string } };
    expect(error.message).to.include(`no ${EVIL.slice(0, 20)}`);
  });

  it('is escaped in names of files, once', async () => {
    for (const args of [
      ['files', image],
      ['diff', image, `${bench.host}/demo/app:2`],
    ]) {
      const seen = await bench.run(...args);
      expect(seen.code, seen.stderr).to.equal(0);
      const text = expectPlain(seen, args.join(' '));
      expect(text).to.include(`/etc/${SHOWN}`);
      expect(text).not.to.include(String.raw`\\x1b`);
    }
    const json = await bench.run('--json', 'files', image);
    expectPlain(json, 'files as JSON');
    const paths = (JSON.parse(json.stdout.toString()) as { path: string }[]).map(({ path }) => path);
    expect(paths).to.include(`/etc/${EVIL}`);
  });

  it('stays as it is in the bytes of a file', async () => {
    const file = await bench.run('cat', image, `/etc/${EVIL}`);
    expect(file.stdout.toString(), file.stderr).to.equal(`raw ${EVIL}`);
  });

  it('is escaped in the documents that inspect prints', async () => {
    const config = Buffer.from('{}');
    const blob = { digest: digestOf(config), size: config.length };
    await bench.registry.pushBlob('demo/odd', blob, () => [config]);
    const manifest = {
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      artifactType: 'application/x',
      config: { mediaType: 'application/x', ...blob },
      layers: [],
      annotations: { [`key ${EVIL}`]: `value ${EVIL}` },
    };
    const name = `${bench.host}/demo/odd:1`;
    await bench.registry.pushManifest('demo/odd', MediaType.manifest, Buffer.from(JSON.stringify(manifest)), {
      tag: '1',
    });
    const added = await bench.run('add', name);
    expect(added.code, added.stderr).to.equal(0);
    const seen = await bench.run('inspect', name);
    expect(expectPlain(seen, 'inspect')).to.include(`value ${SHOWN_JSON}`);
    expect(JSON.parse(seen.stdout.toString())).to.deep.include({ kind: 'image', manifest });
  });

  it('is escaped in arguments that are wrong, in paths, notes and logs', async () => {
    for (const args of [
      [`no-such-command${EVIL}`],
      ['has', EVIL],
      ['--json', 'rm', `nothing${EVIL}:1`],
      ['add', `oci:${join(bench.dir, `missing${EVIL}`)}`],
      ['--cache', join(bench.dir, `no${EVIL}cache`), 'ls'],
      ['--log-level', 'debug', 'extract', image, join(bench.dir, `out${EVIL}`)],
    ]) {
      expectPlain(await bench.run(...args), JSON.stringify(args));
    }
  });
});
