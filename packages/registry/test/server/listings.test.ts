import { LayercacheError, MAX_MANIFEST_SIZE, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { expect } from 'chai';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { imageIndex, pushImage } from '../images.js';
import { bytesOf, errorCode, serving } from './serving.js';

async function json(response: Response): Promise<unknown> {
  expect(response.status).to.equal(200);
  return response.json();
}

function next(response: Response): string | undefined {
  return /^<([^>]+)>; rel="next"$/.exec(response.headers.get('link') ?? '')?.[1];
}

describe('the list of tags', () => {
  it('is whole and in order', () =>
    serving(async (url, registry) => {
      for (const tag of ['b', 'a', 'B', '1']) await pushImage(registry, 'team/app', 'x', { tag });
      expect(await json(await fetch(`${url}/v2/team/app/tags/list`))).to.deep.equal({
        name: 'team/app',
        tags: ['1', 'B', 'a', 'b'],
      });
    }));

  it('comes in pages that link to the next', () =>
    serving(async (url, registry) => {
      const all = ['t1', 't2', 't3', 't4', 't5'];
      for (const tag of all) await pushImage(registry, 'app', 'x', { tag });
      const found: string[] = [];
      let pages = 0;
      for (let where: string | undefined = '/v2/app/tags/list?n=2'; where !== undefined; pages += 1) {
        const response: Response = await fetch(url + where);
        const { tags } = (await json(response)) as { tags: string[] };
        expect(tags.length).to.be.at.most(2);
        found.push(...tags);
        where = next(response);
      }
      expect(found).to.deep.equal(all);
      expect(pages).to.equal(3);
    }));

  it('ends without a link when the page is just full', () =>
    serving(async (url, registry) => {
      for (const tag of ['a', 'b']) await pushImage(registry, 'app', 'x', { tag });
      const response = await fetch(`${url}/v2/app/tags/list?n=2`);
      expect(next(response)).to.equal(undefined);
    }));

  it('is empty, without a link, when no tag is wanted', () =>
    serving(async (url, registry) => {
      await pushImage(registry, 'app', 'x', { tag: 'a' });
      const response = await fetch(`${url}/v2/app/tags/list?n=0`);
      expect(next(response)).to.equal(undefined);
      expect(await json(response)).to.deep.equal({ name: 'app', tags: [] });
    }));

  it('starts after `last`, whether that tag exists or not', () =>
    serving(async (url, registry) => {
      for (const tag of ['a', 'b', 'd']) await pushImage(registry, 'app', 'x', { tag });
      for (const [last, tags] of [
        ['b', ['d']],
        ['c', ['d']],
        ['d', []],
      ] as const) {
        expect(await json(await fetch(`${url}/v2/app/tags/list?last=${last}`))).to.deep.equal({
          name: 'app',
          tags,
        });
      }
    }));

  it('refuses a number of tags that is none', () =>
    serving(async (url, registry) => {
      await pushImage(registry, 'app', 'x', { tag: 'a' });
      for (const n of ['-1', 'x', '1.5', '9'.repeat(20)]) {
        expect((await fetch(`${url}/v2/app/tags/list?n=${n}`)).status).to.equal(400);
      }
    }));
});

describe('the catalog', () => {
  it('lists the repositories in pages', () =>
    serving(async (url, registry) => {
      for (const name of ['b', 'a/x', 'c']) await pushImage(registry, name, 'x');
      expect(await json(await fetch(`${url}/v2/_catalog`))).to.deep.equal({
        repositories: ['a/x', 'b', 'c'],
      });
      const response = await fetch(`${url}/v2/_catalog?n=1`);
      expect(next(response)).to.equal('/v2/_catalog?n=1&last=a%2Fx');
      expect(await json(await fetch(url + next(response)!))).to.deep.equal({ repositories: ['b'] });
    }));
});

describe('the list of referrers', () => {
  const index = async (response: Response): Promise<Descriptor[]> => {
    expect(response.status).to.equal(200);
    expect(response.headers.get('content-type')).to.equal(MediaType.index);
    const bytes = await bytesOf(response);
    expect(bytes.length).to.be.at.most(MAX_MANIFEST_SIZE);
    const parsed = JSON.parse(bytes.toString()) as { schemaVersion: number; manifests: Descriptor[] };
    expect(parsed.schemaVersion).to.equal(2);
    return parsed.manifests;
  };

  it('has the artifact types and annotations of those that refer', () =>
    serving(async (url, registry) => {
      const subject = await pushImage(registry, 'app', 'subject');
      const sbom = await pushImage(registry, 'app', 'sbom', {
        more: { subject, artifactType: 'application/sbom', annotations: { by: 'a tool' } },
      });
      const plain = await registry.pushManifest('app', MediaType.index, imageIndex([], { subject }));
      const found = await index(await fetch(`${url}/v2/app/referrers/${subject.digest}`));
      expect(found).to.have.deep.members([
        { ...sbom, artifactType: 'application/sbom', annotations: { by: 'a tool' } },
        plain,
      ]);
    }));

  it('can be filtered by artifact type', () =>
    serving(async (url, registry) => {
      const subject = await pushImage(registry, 'app', 'subject');
      for (const type of ['a', 'b']) {
        await pushImage(registry, 'app', type, { more: { subject, artifactType: `application/${type}` } });
      }
      const response = await fetch(`${url}/v2/app/referrers/${subject.digest}?artifactType=application/b`);
      expect(response.headers.get('oci-filters-applied')).to.equal('artifactType');
      expect((await index(response)).map((each) => each.artifactType)).to.deep.equal(['application/b']);
    }));

  it('is empty, and never 404, where nothing refers or nothing is known', () =>
    serving(async (url) => {
      expect(await index(await fetch(`${url}/v2/none/referrers/${digestOf('nothing')}`))).to.deep.equal([]);
    }));

  it('refuses a digest that is none', () =>
    serving(async (url) => {
      const response = await fetch(`${url}/v2/app/referrers/sha256:x`);
      expect(response.status).to.equal(400);
      expect(await errorCode(response)).to.equal('DIGEST_INVALID');
    }));

  it('comes in several indexes when one would be too large', async () => {
    const registry = new MemoryRegistry();
    const all = Array.from({ length: 30 }, (_, i): Descriptor => {
      return {
        mediaType: MediaType.manifest,
        digest: digestOf(String(i)),
        size: i,
        annotations: { padding: 'x'.repeat(300_000) },
      };
    });
    registry.referrers = async function* () {
      yield* all;
      await Promise.resolve();
    };
    await serving(
      async (url) => {
        const found: Descriptor[] = [];
        let where: string | undefined = `/v2/app/referrers/${digestOf('subject')}`;
        while (where !== undefined) {
          const response: Response = await fetch(url + where);
          where = next(response);
          found.push(...(await index(response)));
        }
        expect(found).to.have.deep.members(all);
      },
      { registry },
    );
  });

  it('is 404 when the registry has no referrers, so that clients use the tag', async () => {
    const registry = new MemoryRegistry();
    registry.referrers = () => {
      throw new LayercacheError('UNSUPPORTED', 'no referrers here');
    };
    await serving(
      async (url) => {
        expect((await fetch(`${url}/v2/app/referrers/${digestOf('x')}`)).status).to.equal(404);
      },
      { registry },
    );
  });
});
