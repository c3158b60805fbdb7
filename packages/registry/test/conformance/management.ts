import { digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { pushBytes, pushImage } from '../images.js';
import { expectFailure, type Subject } from './pull.js';

export function describeManagement({ registry, repository, lacks }: Subject): void {
  describe('content management', () => {
    (lacks.has('tag deletion') ? it.skip : it)('removes a tag and leaves the manifest', async () => {
      const name = repository();
      const pushed = await pushImage(registry(), name, 'image', { tag: 'gone' });
      await registry().tag(name, pushed.digest, 'stays');
      await registry().deleteManifest(name, 'gone');
      await expectFailure(registry().resolve(name, 'gone'), 'NOT_FOUND');
      expect(await registry().resolve(name, 'stays')).to.deep.equal(pushed);
      await expectFailure(registry().deleteManifest(name, 'gone'), 'NOT_FOUND');
    });

    it('removes a manifest together with its tags', async () => {
      const name = repository();
      const pushed = await pushImage(registry(), name, 'image', { tag: 'tag' });
      const other = await pushImage(registry(), name, 'other', { tag: 'other' });
      await registry().deleteManifest(name, pushed.digest);
      await expectFailure(registry().resolve(name, pushed.digest), 'NOT_FOUND');
      await expectFailure(registry().resolve(name, 'tag'), 'NOT_FOUND');
      await expectFailure(registry().deleteManifest(name, pushed.digest), 'NOT_FOUND');
      expect(await registry().resolve(name, 'other')).to.deep.equal(other);
    });

    (lacks.has('blob deletion') ? it.skip : it)('removes a blob', async () => {
      const name = repository();
      const { digest } = await pushBytes(registry(), name, Buffer.from(`a blob of ${name}`));
      await registry().deleteBlob(name, digest);
      expect(await registry().blobSize(name, digest)).to.equal(undefined);
      await expectFailure(registry().deleteBlob(name, digest), 'NOT_FOUND');
      await expectFailure(registry().deleteBlob(name, digestOf('never there')), 'NOT_FOUND');
    });
  });
}
