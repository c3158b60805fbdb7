import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { expect } from 'chai';
import { imageIndex, pushImage } from '../images.js';
import { expectFailure, type Subject } from './pull.js';

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

export function describeDiscovery({ registry, repository, lacks }: Subject): void {
  describe('content discovery', () => {
    it('lists tags in byte order, from the start or after one', async () => {
      const name = repository();
      for (const tag of ['b', 'a', 'B', '1.0', 'c']) await pushImage(registry(), name, 'x', { tag });
      expect(await all(registry().tags(name))).to.deep.equal(['1.0', 'B', 'a', 'b', 'c']);
      expect(await all(registry().tags(name, { after: 'a' }))).to.deep.equal(['b', 'c']);
      expect(await all(registry().tags(name, { after: 'c' }))).to.deep.equal([]);
    });

    it('says that there is no such repository', async () => {
      await expectFailure(all(registry().tags(repository())), 'NOT_FOUND');
    });

    (lacks.has('catalog') ? it.skip : it)(
      'lists repositories in byte order, from the start or after one',
      async () => {
        const names = [repository(), repository(), repository()].sort();
        for (const name of names) await pushImage(registry(), name, 'x', { tag: 'x' });
        const found = await all(registry().repositories());
        expect(found).to.include.members(names);
        expect(found).to.deep.equal([...found].sort());
        const after = await all(registry().repositories({ after: names[0]! }));
        expect(after).to.include.members(names.slice(1));
        expect(after).not.to.include(names[0]);
      },
    );

    it('lists what refers to a manifest', async () => {
      const name = repository();
      const subject = await pushImage(registry(), name, 'subject', { tag: 'subject' });
      expect(await all(registry().referrers(name, subject.digest))).to.deep.equal([]);
      const sbom = await pushImage(registry(), name, 'sbom', {
        more: {
          subject,
          artifactType: 'application/vnd.example.sbom',
          annotations: { 'org.example.by': 'a tool' },
        },
      });
      const signature = await pushImage(registry(), name, 'signature', { more: { subject } });
      const index = await registry().pushManifest(
        name,
        MediaType.index,
        imageIndex([], { subject, artifactType: 'application/vnd.example.index' }),
      );
      await pushImage(registry(), name, 'unrelated');
      const expected: Descriptor[] = [
        {
          ...sbom,
          artifactType: 'application/vnd.example.sbom',
          annotations: { 'org.example.by': 'a tool' },
        },
        { ...signature, artifactType: MediaType.config },
        { ...index, artifactType: 'application/vnd.example.index' },
      ];
      expect(await all(registry().referrers(name, subject.digest))).to.have.deep.members(expected);
      const artifactType = 'application/vnd.example.sbom';
      expect(await all(registry().referrers(name, subject.digest, { artifactType }))).to.deep.equal([
        expected[0],
      ]);
    });

    it('takes a manifest whose subject is not there yet', async () => {
      const name = repository();
      const digest = digestOf('comes later');
      const subject = { mediaType: MediaType.manifest, digest, size: 11 };
      const pushed = await pushImage(registry(), name, 'early', { more: { subject } });
      const found = await all(registry().referrers(name, digest));
      expect(found.map((each) => each.digest)).to.deep.equal([pushed.digest]);
    });
  });
}
