import type { IncomingMessage } from 'node:http';
import { digestOf, isLayercacheError, type Digest } from '@layercache/oci';
import { expect } from 'chai';
import fc from 'fast-check';
import { Endpoints } from '../../src/client/endpoints.js';
import { RegistryClient } from '../../src/client/registry-client.js';
import type { HttpResponse } from '../../src/client/transport.js';
import { failureOf, impatient, scripted } from './scripted.js';

const DIGEST = digestOf(Buffer.from('a layer'));
const HOST = 'registry.example:5000';
const endpoints = new Endpoints(HOST, () => false);

/** Names that would lead elsewhere if they were put into a URL as they are. */
const NASTY = [
  'http://evil.example/steal',
  'https:evil.example/steal',
  '//evil.example/steal',
  String.raw`\\evil.example\steal`,
  String.raw`/\evil.example/steal`,
  '../../steal',
  'app/../../steal',
  'app/%2e%2e/steal',
  'app?digest=x',
  'app#x',
  'app\n',
  'app\u0000',
  'app@evil.example',
  'evil.example:80',
  '',
  '.',
  '..',
  'App',
];

function answer(
  headers: Record<string, string>,
  from: { url?: string; leftOrigin?: boolean } = {},
): HttpResponse {
  return {
    status: 202,
    headers,
    body: undefined as unknown as IncomingMessage,
    url: new URL(from.url ?? `https://${HOST}/v2/app/blobs/uploads/`),
    leftOrigin: from.leftOrigin ?? false,
  };
}

describe('the URLs of a registry', () => {
  it('are those of the specification', () => {
    const base = `https://${HOST}/v2`;
    const found = [
      endpoints.manifest('team/app', 'v1.2_3-x'),
      endpoints.manifest('app', DIGEST),
      endpoints.blob('app', DIGEST),
      endpoints.uploads('app'),
      endpoints.mount('app', DIGEST, 'team/base'),
      endpoints.tags('app'),
      endpoints.referrers('app', DIGEST),
      endpoints.catalog(),
    ];
    expect(found.map(({ href }) => href)).to.deep.equal([
      `${base}/team/app/manifests/v1.2_3-x`,
      `${base}/app/manifests/${DIGEST}`,
      `${base}/app/blobs/${DIGEST}`,
      `${base}/app/blobs/uploads/`,
      `${base}/app/blobs/uploads/?mount=${DIGEST.replace(':', '%3A')}&from=team%2Fbase`,
      `${base}/app/tags/list`,
      `${base}/app/referrers/${DIGEST}`,
      `${base}/_catalog`,
    ]);
  });

  it('stay below /v2/ of its origin, or are refused, whatever the names are', () => {
    const text = fc.oneof(
      fc.constantFrom(...NASTY, 'app', DIGEST),
      fc.string({ unit: 'binary' }),
      fc.webUrl(),
    );
    fc.assert(
      fc.property(text, text, (first, second) => {
        const makers = [
          () => endpoints.manifest(first, second),
          () => endpoints.blob(first, second as Digest),
          () => endpoints.uploads(first),
          () => endpoints.mount('app', DIGEST, first),
          () => endpoints.mount(first, second as Digest, 'base'),
          () => endpoints.tags(first),
          () => endpoints.referrers(first, second as Digest),
        ];
        for (const make of makers) {
          try {
            const { origin, pathname, hash } = make();
            expect(origin).to.equal(`https://${HOST}`);
            expect(pathname).to.match(/^\/v2\/[a-z0-9]/);
            expect(hash).to.equal('');
          } catch (error) {
            if (!isLayercacheError(error, 'REFERENCE_INVALID', 'DIGEST_INVALID')) throw error;
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  for (const name of NASTY) {
    it(`are not made of ${JSON.stringify(name)}`, () => {
      expect(() => endpoints.tags(name))
        .to.throw()
        .with.property('code', 'REFERENCE_INVALID');
      expect(() => endpoints.blob('app', name as Digest))
        .to.throw()
        .with.property('code', 'DIGEST_INVALID');
      if (name !== 'App')
        expect(() => endpoints.manifest('app', name))
          .to.throw()
          .with.property('code', 'REFERENCE_INVALID');
    });
  }

  for (const host of [
    ...NASTY.filter((name) => !['App', 'evil.example:80'].includes(name)),
    'a.example/v2',
    'u:p@a.example',
    '[:::]',
    'a.example:99999',
    '1.2.3.4.5',
    'a.example.',
    'a b',
    'a.example:',
  ]) {
    it(`are none at the host ${JSON.stringify(host)}`, () => {
      expect(() => new RegistryClient(host))
        .to.throw()
        .with.property('code', 'REFERENCE_INVALID');
    });
  }

  it('are made of hosts in upper case, addresses and ports', () => {
    for (const host of ['A.Example', '127.0.0.1:5000', '[2001:db8::1]:443', 'localhost', 'DOCKER.io']) {
      expect(() => new Endpoints(host, () => false), host).not.to.throw();
    }
    expect(new Endpoints('Docker.IO', () => false).base.host).to.equal('registry-1.docker.io');
  });
});

describe('where a registry says an upload goes on', () => {
  const next = (location: string, from?: Parameters<typeof answer>[1]): string =>
    endpoints.afterLocation(answer({ location }, from), 'pushing').href;

  it('may be relative, carry a query, or have the wrong scheme', () => {
    expect(next('/v2/app/blobs/uploads/1?state=x')).to.equal(
      `https://${HOST}/v2/app/blobs/uploads/1?state=x`,
    );
    expect(next('2')).to.equal(`https://${HOST}/v2/app/blobs/uploads/2`);
    expect(next(`http://${HOST}/upload`)).to.equal(`https://${HOST}/upload`);
    expect(next(`https://alice:word@${HOST}/upload`)).to.equal(`https://${HOST}/upload`);
    expect(next(`https://${HOST}//evil.example/upload`)).to.equal(`https://${HOST}//evil.example/upload`);
  });

  for (const location of [
    'https://evil.example/upload',
    '//evil.example/upload',
    String.raw`\\evil.example/upload`,
    'https://registry.example/upload',
    `https://${HOST}.evil.example/upload`,
    `https://${HOST}@evil.example/upload`,
    'ftp://evil.example/upload',
    'data:text/plain,x',
    'http://[',
  ]) {
    it(`is not ${location}`, () => {
      expect(() => next(location))
        .to.throw()
        .with.property('code', 'REGISTRY');
    });
  }

  it('is not believed of another host that it redirected to', () => {
    expect(() => next('/upload', { url: 'https://evil.example/x', leftOrigin: true })).to.throw(
      'is not the registry',
    );
    // Nor of itself, when another host led back to it.
    expect(() => next('/upload', { leftOrigin: true })).to.throw('is not the registry');
  });
});

describe('the next page of a list', () => {
  it('is at the registry, whatever host the link names', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.webUrl({ withQueryParameters: true }),
          fc.constantFrom(
            '//evil.example/x',
            'https://x//evil.example/x',
            String.raw`\\evil.example\x`,
            '/v2/x',
            '?n=1',
          ),
        ),
        (target) => {
          const url = endpoints.nextPage(answer({ link: `<${target}>; rel="next"` }), 'listing');
          expect(url?.origin).to.equal(`https://${HOST}`);
        },
      ),
    );
  });

  it('does not exist without a link', () => {
    expect(endpoints.nextPage(answer({}), 'listing')).to.equal(undefined);
    expect(endpoints.nextPage(answer({ link: '</x>; rel="prev"' }), 'listing')).to.equal(undefined);
  });
});

describe('a client', () => {
  it('sends no request for a name that breaks the grammar', () =>
    scripted(
      (_, response) => response.writeHead(200).end(),
      async (host, seen) => {
        const client = new RegistryClient(host, impatient);
        const bytes = Buffer.from('{}');
        const blob = { digest: digestOf(bytes), size: bytes.length };
        const bad = 'http://evil.example/steal';
        const operations: readonly (() => Promise<unknown>)[] = [
          () => client.resolve(bad, 'v1'),
          () => client.resolve('app', bad),
          () => client.fetchManifest(bad, 'v1'),
          () => client.fetchManifest('app', '../v1'),
          () => client.blobSize(bad, DIGEST),
          () => client.blobSize('app', bad as Digest),
          () => client.fetchBlob(bad, DIGEST),
          () => client.fetchBlob('app', `${DIGEST}/../x` as Digest),
          () => client.pushBlob(bad, blob, () => [bytes]),
          () => client.mountBlob(bad, DIGEST, 'base'),
          () => client.mountBlob('app', DIGEST, bad),
          () => client.mountBlob('app', bad as Digest, 'base'),
          () => client.pushManifest(bad, 'application/json', bytes),
          () => client.pushManifest('app', 'application/json', bytes, { tag: bad }),
          () => client.tag(bad, DIGEST, 'v1'),
          () => client.deleteManifest(bad, DIGEST),
          () => client.deleteManifest('app', '..'),
          () => client.deleteBlob(bad, DIGEST),
          () => client.tags(bad).next(),
          () => client.referrers(bad, DIGEST).next(),
          () => client.referrers('app', bad as Digest).next(),
        ];
        for (const operation of operations) {
          const { code } = await failureOf(operation());
          expect(code, operation.toString()).to.be.oneOf(['REFERENCE_INVALID', 'DIGEST_INVALID']);
        }
        const failure = await failureOf(client.pushManifest('app', 'a/b\r\nx: y', bytes));
        expect(failure.code).to.equal('DOCUMENT_INVALID');
        expect(seen).to.deep.equal([]);
      },
    ));
});
