import { digestOf, MediaType, type Descriptor } from '@layercache/oci';
import { expect } from 'chai';
import { RegistryClient } from '../../src/client/registry-client.js';
import type { Registry } from '../../src/registry.js';
import type { RequestHandler } from '../../src/server/registry-handler.js';
import { failureOf, fronted, impatient, scripted, sendJson } from './scripted.js';

const CONFIG = Buffer.from('{}');

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** An artifact that refers to `subject`. */
async function pushReferrer(
  registry: Registry,
  subject: Descriptor | undefined,
  artifactType: string,
): Promise<Descriptor> {
  const config = { mediaType: MediaType.empty, digest: digestOf(CONFIG), size: CONFIG.length };
  await registry.pushBlob('app', config, () => [CONFIG]);
  const manifest = {
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    artifactType,
    config,
    layers: [],
    subject,
  };
  const annotations = { 'org.example.kind': artifactType };
  const bytes = Buffer.from(JSON.stringify({ ...manifest, annotations }));
  return registry.pushManifest('app', MediaType.manifest, bytes);
}

/** A registry from before the referrers API. */
function withoutReferrers(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    const setHeader = response.setHeader.bind(response);
    response.setHeader = (name, value) =>
      name.toLowerCase() === 'oci-subject' ? response : setHeader(name, value);
    if (request.url?.includes('/referrers/') === true) response.writeHead(404).end('404 page not found');
    else handler(request, response);
  };
}

describe('tags', () => {
  it('come page by page, however the registry writes its links', () => {
    const pages: Record<string, { tags: string[] | null; link?: string }> = {
      '/v2/app/tags/list?n=1000': { tags: ['a', 'b'], link: '</v2/app/tags/list?page=2>; rel="next"' },
      '/v2/app/tags/list?page=2': {
        tags: null,
        link: '<http://elsewhere.example/v2/app/tags/list?page=3>;rel=next',
      },
      '/v2/app/tags/list?page=3': { tags: ['c'] },
    };
    return scripted(
      ({ url }, response) => {
        const { tags, link } = pages[url!]!;
        sendJson(response, 200, { name: 'app', tags }, link === undefined ? {} : { link });
      },
      async (host) => {
        expect(await all(new RegistryClient(host, impatient).tags('app'))).to.deep.equal(['a', 'b', 'c']);
      },
    );
  });

  it('whose pages go in a circle end', () =>
    scripted(
      (_, response) => {
        sendJson(response, 200, { tags: ['a'] }, { link: '</v2/app/tags/list?n=1000>; rel="next"' });
      },
      async (host) => {
        const failure = await failureOf(all(new RegistryClient(host, impatient).tags('app')));
        expect(failure.message).to.include('circle');
      },
    ));

  it('linked to what is no address are an error', () =>
    scripted(
      (_, response) => {
        sendJson(response, 200, { tags: ['a'] }, { link: '<http://[>; rel="next"' });
      },
      async (host) => {
        const failure = await failureOf(all(new RegistryClient(host, impatient).tags('app')));
        expect(failure.message).to.include('which is no URL');
      },
    ));

  it('of a repository that is not there are NOT_FOUND', () =>
    fronted(
      (handler) => handler,
      async (client) => {
        expect((await failureOf(all(client.tags('nobody')))).code).to.equal('NOT_FOUND');
      },
    ));
});

describe('referrers', () => {
  for (const [what, wrap] of [
    ['with the referrers API', (handler: RequestHandler) => handler],
    ['without it', withoutReferrers],
  ] as const) {
    describe(`in a registry ${what}`, () => {
      it('are found, by type too', () =>
        fronted(wrap, async (client) => {
          const subject = await pushReferrer(client, undefined, 'application/vnd.example.image');
          expect(await all(client.referrers('app', subject.digest))).to.deep.equal([]);
          const first = await pushReferrer(client, subject, 'application/vnd.example.sbom');
          const second = await pushReferrer(client, subject, 'application/vnd.example.signature');
          await pushReferrer(client, subject, 'application/vnd.example.signature');
          const found = await all(client.referrers('app', subject.digest));
          expect(found.map(({ digest }) => digest)).to.have.members([first.digest, second.digest]);
          const [signature, ...more] = await all(
            client.referrers('app', subject.digest, { artifactType: 'application/vnd.example.signature' }),
          );
          expect(more).to.deep.equal([]);
          expect(signature).to.deep.equal({
            ...second,
            artifactType: 'application/vnd.example.signature',
            annotations: { 'org.example.kind': 'application/vnd.example.signature' },
          });
        }));

      it('that are pushed at the same time are all there', () =>
        fronted(wrap, async (client) => {
          const subject = await pushReferrer(client, undefined, 'application/vnd.example.image');
          const pushed = await Promise.all(
            Array.from({ length: 6 }, (_, number) =>
              pushReferrer(client, subject, `application/vnd.example.${number}`),
            ),
          );
          const found = await all(client.referrers('app', subject.digest));
          expect(found.map(({ digest }) => digest)).to.have.members(pushed.map(({ digest }) => digest));
        }));

      it('that are deleted are gone from the list', () =>
        fronted(wrap, async (client) => {
          const subject = await pushReferrer(client, undefined, 'application/vnd.example.image');
          const kept = await pushReferrer(client, subject, 'application/vnd.example.a');
          const deleted = await pushReferrer(client, subject, 'application/vnd.example.b');
          await client.deleteManifest('app', deleted.digest);
          const found = await all(client.referrers('app', subject.digest));
          expect(found.map(({ digest }) => digest)).to.deep.equal([kept.digest]);
        }));
    });
  }

  it('are not listed in a manifest that is no list', () =>
    fronted(withoutReferrers, async (client, registry) => {
      const subject = await pushReferrer(client, undefined, 'application/vnd.example.image');
      await registry.tag('app', subject.digest, subject.digest.replace(':', '-'));
      const failure = await failureOf(pushReferrer(client, subject, 'application/vnd.example.sbom'));
      expect(failure.code).to.equal('DOCUMENT_INVALID');
    }));
});
