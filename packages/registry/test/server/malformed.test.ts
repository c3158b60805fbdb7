import { connect } from 'node:net';
import { once } from 'node:events';
import { digestOf, MediaType } from '@layercache/oci';
import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { pushImage } from '../images.js';
import { ask, codeOf, parseAnswer, sendRaw } from './raw.js';
import { bytesOf, errorCode, serving } from './serving.js';

describe('a malformed request', () => {
  it('is refused with 400 and an error body when its target is none', () =>
    serving(async (url) => {
      const host = `Host: ${new URL(url).host}`;
      for (const target of [
        'http://[',
        'http://',
        'x',
        'ftp://127.0.0.1/',
        'http://127.0.0.1:99999/',
        'v2/',
        '?',
        '\\',
      ]) {
        const answer = await ask(url, `GET ${target} HTTP/1.1`, host);
        expect([answer.status, codeOf(answer)], target).to.deep.equal([400, 'UNSUPPORTED']);
      }
      for (const target of ['//evil.example/v2/', '/v2/[/tags/list', '*', '/%', '/v2/%/manifests/%']) {
        const answer = await ask(url, `GET ${target} HTTP/1.1`, host);
        expect(answer.status, target).to.be.oneOf([400, 404]);
        expect(codeOf(answer), target).to.match(/^[A-Z_]+$/);
      }
      expect((await fetch(`${url}/v2/`)).status).to.equal(200);
    }));

  it('is refused with an error body when it is no HTTP', () =>
    serving(async (url) => {
      const host = `Host: ${new URL(url).host}`;
      const requests: readonly (readonly [string, number])[] = [
        ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
        ['GET\r\n\r\n', 400],
        ['GET /v2/ HTTP/9.9\r\n\r\n', 400],
        [`GET /v2/ HTTP/1.1\r\n${host}\r\nbad header\r\n\r\n`, 400],
        [`GET /v2/ HTTP/1.1\r\n${host}\r\nContent-Length: -1\r\n\r\n`, 400],
        [
          `POST /v2/a/blobs/uploads/ HTTP/1.1\r\n${host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n`,
          400,
        ],
        [
          `POST /v2/a/blobs/uploads/ HTTP/1.1\r\n${host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`,
          400,
        ],
        [`GET /v2/ HTTP/1.1\r\n${host}\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`, 431],
        [`GET /v2/ HTTP/1.1\r\n${host}\r\nExpect: the unexpected\r\nConnection: close\r\n\r\n`, 417],
        ['CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n', 405],
      ];
      for (const [text, status] of requests) {
        const answer = parseAnswer(await sendRaw(url, Buffer.from(text, 'latin1')));
        expect([answer.status, codeOf(answer)], text.slice(0, 60)).to.deep.equal([status, 'UNSUPPORTED']);
      }
      expect((await fetch(`${url}/v2/`)).status).to.equal(200);
    }));

  it('after a good one does not spoil the answer to that', () =>
    serving(async (url, registry) => {
      const { digest } = await pushImage(registry, 'app', 'one');
      const host = `Host: ${new URL(url).host}`;
      const text = await sendRaw(
        url,
        `GET /v2/app/manifests/${digest} HTTP/1.1\r\n${host}\r\n\r\nrubbish\r\n\r\n`,
      );
      // The answers, as many as there are, come one after the other.
      expect(text.split('HTTP/1.1 ').length - 1).to.be.at.most(2);
      expect((await fetch(`${url}/v2/app/manifests/${digest}`)).status).to.equal(200);
    }));

  it('whatever it is gets answers of 4xx with error bodies, and the server lives on', () =>
    serving(async (url) => {
      const { host } = new URL(url);
      const piece = fc.oneof(
        fc.constantFrom(
          '/v2/',
          'app',
          'blobs',
          'uploads',
          'manifests',
          '/',
          '..',
          '%00',
          '%',
          '[',
          '?n=',
          '#',
          '//',
        ),
        fc.constantFrom(
          '?mount=',
          '&from=',
          'sha256:',
          digestOf('x'),
          '?digest=',
          '?last=',
          '_catalog',
          '\\',
        ),
        fc.string({ maxLength: 8 }),
      );
      const target = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(''));
      const header = fc.tuple(
        fc.constantFrom('Range', 'Content-Range', 'Content-Type', 'Accept', 'If-Range', 'Expect', 'X'),
        fc.string({ maxLength: 20 }),
      );
      const method = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE');
      await fc.assert(
        fc.asyncProperty(method, target, fc.array(header, { maxLength: 3 }), async (verb, path, headers) => {
          const lines = headers.map(([name, value]) => `${name}: ${value}`);
          const text = [`${verb} ${path} HTTP/1.1`, `Host: ${host}`, ...lines, 'Connection: close', '', ''];
          const answer = parseAnswer(await sendRaw(url, Buffer.from(text.join('\r\n'), 'utf8')));
          expect(answer.status).to.be.below(500);
          if (answer.status >= 400 && answer.body !== '') codeOf(answer);
          else expect(answer.status >= 400 && verb !== 'HEAD' && answer.status !== 416).to.equal(false);
        }),
        { numRuns: 300 },
      );
      expect((await fetch(`${url}/v2/`)).status).to.equal(200);
    }));
});

describe('a body that is too large', () => {
  it('of a manifest is refused before it has come', () =>
    serving(async (url) => {
      const announced = await fetch(`${url}/v2/app/manifests/v1`, {
        method: 'PUT',
        headers: { 'Content-Type': MediaType.manifest },
        body: Buffer.alloc(4 * 1024 * 1024 + 1, ' '),
      });
      expect([announced.status, await errorCode(announced)]).to.deep.equal([413, 'SIZE_INVALID']);
      // Without a length it is refused at the limit, though the client would go on for ever.
      const { hostname, port, host } = new URL(url);
      const socket = connect(Number(port), hostname);
      const answer = once(socket, 'data');
      socket.write(
        `PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      );
      const chunk = Buffer.concat([
        Buffer.from('100000\r\n'),
        Buffer.alloc(0x100000, ' '),
        Buffer.from('\r\n'),
      ]);
      for (let count = 0; count < 5; count++) socket.write(chunk);
      const [text] = (await answer) as [Buffer];
      expect(parseAnswer(text.toString()).status).to.equal(413);
      socket.destroy();
    }));

  it('of a refused request is cut off when it does not end', () =>
    serving(async (url) => {
      const { hostname, port, host } = new URL(url);
      const socket = connect(Number(port), hostname);
      socket.on('error', () => undefined);
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(
        `PATCH /v2/app/blobs/uploads/none HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000000000000\r\n\r\n`,
      );
      const bytes = Buffer.alloc(1024 * 1024);
      let sent = 0;
      while (!socket.destroyed && sent < 1000) {
        sent++;
        if (!socket.write(bytes)) {
          await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed]);
        }
      }
      await closed;
      expect(sent).to.be.below(200);
      expect((await fetch(`${url}/v2/`)).status).to.equal(200);
    }));
});

describe('a media type', () => {
  it('that could not be a header again is refused', () =>
    serving(async (url) => {
      for (const mediaType of ['a/b\r\nX: y', 'a/\u65e5', 'plain', 'a/b c', '/', `a/${'b'.repeat(200)}`]) {
        const refused = await fetch(`${url}/v2/app/manifests/v1`, {
          method: 'PUT',
          body: JSON.stringify({ schemaVersion: 2, mediaType }),
        });
        expect([refused.status, await errorCode(refused)], mediaType).to.deep.equal([
          400,
          'MANIFEST_INVALID',
        ]);
      }
    }));

  it('that a registry has all the same is a failure, and not the end', async () => {
    const registry = new MemoryRegistry();
    const descriptor = { mediaType: 'a/b\n', digest: digestOf('x'), size: 1 };
    registry.fetchManifest = () => Promise.resolve({ descriptor, bytes: Buffer.from('x') });
    registry.resolve = () => Promise.resolve(descriptor);
    await serving(
      async (url) => {
        const failed = await fetch(`${url}/v2/app/manifests/v1`);
        expect([failed.status, await errorCode(failed)]).to.deep.equal([500, 'UNKNOWN']);
        expect((await fetch(`${url}/v2/app/manifests/v1`, { method: 'HEAD' })).status).to.equal(500);
        expect((await bytesOf(await fetch(`${url}/v2/`))).toString()).to.equal('{}\n');
      },
      { registry },
    );
  });
});
