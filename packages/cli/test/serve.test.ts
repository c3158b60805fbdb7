import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { listensOnLoopback, parseListenAddress } from '../src/listen-address.js';
import { Bench, finished, firstLine, type Running } from './program.js';

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
}

function ask(url: string, method: string, path: string, host: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request(new URL(path, url), { method, headers: { Host: host } }, (response: IncomingMessage) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => {
        resolve({ status: response.statusCode, body });
      });
    })
      .on('error', reject)
      .end();
  });
}

describe('serve', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  const running: Running[] = [];
  beforeEach(async () => {
    bench = await Bench.open();
  });
  afterEach(async () => {
    for (const child of running.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const done = finished(child);
      child.kill('SIGINT');
      await done;
    }
    await bench.close();
  });

  async function serve(...args: string[]): Promise<string> {
    const child = bench.start('serve', ...args);
    running.push(child);
    const url = await firstLine(child);
    expect(url, args.join(' ')).to.match(/^http:/);
    return url;
  }

  it('refuses to let others than this machine in unless it was said how', async () => {
    for (const listen of ['0.0.0.0:0', ':0']) {
      const refused = await bench.run('serve', '--listen', listen);
      expect(refused.code, listen).to.equal(2);
      expect(refused.stderr).to.include('anyone who can reach this address could push and delete');
      expect(refused.stderr).to.include('--read-only').and.to.include('--insecure');
      expect(refused.stdout.length).to.equal(0);
    }
    const mirror = await bench.run('serve', '--listen', '0.0.0.0:0', '--upstream', bench.host);
    expect(mirror.code).to.equal(2);
    expect(mirror.stderr).to.include(`your credentials for ${bench.host}`);
    const metrics = await bench.run('serve', '--listen', '127.0.0.1:0', '--metrics', ':0');
    expect([metrics.code, metrics.stderr.includes('--metrics')]).to.deep.equal([2, true]);
  });

  it('lets others in with --insecure, and readers with --read-only', async () => {
    const body = randomBytes(1000);
    const path = `/v2/app/blobs/uploads/?digest=${digestOf(body)}`;
    const open = await serve('--listen', '0.0.0.0:0', '--insecure');
    expect((await fetch(`${open}${path}`, { method: 'POST', body })).status).to.equal(201);
    const reading = await serve('--listen', '0.0.0.0:0', '--read-only');
    for (const [method, where] of [
      ['POST', path],
      ['POST', '/v2/app/blobs/uploads/'],
      ['POST', `/v2/app/blobs/uploads/?mount=${digestOf(body)}&from=other`],
      ['PUT', '/v2/app/manifests/v1'],
      ['DELETE', `/v2/app/blobs/${digestOf(body)}`],
    ] as const) {
      const refused = await fetch(`${reading}${where}`, { method });
      expect(refused.status, `${method} ${where}`).to.equal(405);
    }
    const blob = await fetch(`${reading}/v2/app/blobs/${digestOf(body)}`);
    expect(Buffer.from(await blob.arrayBuffer()).equals(body)).to.equal(true);
    const mirror = await serve('--listen', '0.0.0.0:0', '--upstream', bench.host, '--read-only');
    expect((await fetch(`${mirror}/v2/`)).status).to.equal(200);
  });

  it('is read-only on loopback, too, when it is told so', async () => {
    const url = await serve('--listen', 'localhost:0', '--read-only');
    expect((await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' })).status).to.equal(405);
  });

  it('answers only to the names it goes by, and says how to give it another', async () => {
    const url = await serve(
      '--listen',
      '127.0.0.1:0',
      '--hostname',
      'one.example',
      '--hostname',
      'Two.Example',
    );
    const { port } = new URL(url);
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, 'one.example', `two.example:${port}`]) {
      expect((await ask(url, 'GET', '/v2/', host)).status, host).to.equal(200);
    }
    for (const method of ['GET', 'DELETE', 'POST']) {
      const refused = await ask(url, method, '/v2/app/manifests/v1', 'evil.example');
      expect(refused.status).to.equal(421);
      expect(refused.body).to.include('--hostname evil.example');
    }
    const open = await serve('--listen', '0.0.0.0:0', '--insecure');
    expect((await ask(open, 'GET', '/v2/', hostname())).status).to.equal(200);
    expect((await ask(open, 'GET', '/v2/', 'evil.example')).status).to.equal(421);
    const none = await bench.run('serve', '--listen', '127.0.0.1:0', '--hostname', 'a b');
    expect(none.code).to.equal(2);
  });

  it('that is killed leaves no unfinished upload behind for the next command', async () => {
    const url = await serve('--listen', '127.0.0.1:0');
    const begun = await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' });
    const location = new URL(begun.headers.get('location')!, url);
    await fetch(location, { method: 'PATCH', body: randomBytes(10_000) });
    const ingest = join(bench.cache, '.layercache', 'ingest');
    expect(readdirSync(ingest)).to.have.length(1);
    const [child] = running;
    const done = finished(child!);
    child!.kill('SIGKILL');
    await done;
    expect((await bench.run('verify')).code).to.equal(0);
    expect(readdirSync(ingest)).to.deep.equal([]);
  });
});

describe('an address to listen on', () => {
  it('is loopback by what it resolves to', async () => {
    for (const text of [
      '127.0.0.1:1',
      '127.9.9.9:1',
      'localhost:1',
      '[::1]:1',
      '[::ffff:127.0.0.1]:1',
      '[::ffff:7f00:1]:1',
    ]) {
      expect(await listensOnLoopback(parseListenAddress(text)), text).to.equal(true);
    }
    for (const text of [
      ':1',
      '0.0.0.0:1',
      '[::]:1',
      '10.0.0.1:1',
      '[fe80::1]:1',
      '[::ffff:10.0.0.1]:1',
      '128.0.0.1:1',
      '0:1',
    ]) {
      expect(await listensOnLoopback(parseListenAddress(text)), text).to.equal(false);
    }
  });

  it('is a host and a port', () => {
    expect(parseListenAddress('[::1]:5000')).to.deep.equal({ host: '::1', port: 5000 });
    expect(parseListenAddress(':5000')).to.deep.equal({ host: '', port: 5000 });
    for (const text of ['here', '1.2.3.4', '1.2.3.4:', '1.2.3.4:70000', '::1:5000', '']) {
      expect(() => parseListenAddress(text), text).to.throw('HOST:PORT');
    }
  });
});
