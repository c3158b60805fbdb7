import { randomBytes } from 'node:crypto';
import { MAX_MANIFEST_SIZE, MediaType, digestOf, isLayercacheError } from '@layercache/oci';
import { expect } from 'chai';
import { descriptorOf, imageIndex, imageManifest, pushBytes, pushImage } from '../images.js';
import { expectFailure, readBlob, type Subject } from './pull.js';

export function describePush({ registry, repository, lacks }: Subject): void {
  const unless = (lack: 'sha512' | 'missing parts' | 'mount'): typeof it =>
    (lacks.has(lack) ? it.skip : it) as typeof it;

  describe('push', () => {
    it('takes the empty blob', async () => {
      const name = repository();
      const empty = Buffer.alloc(0);
      await pushBytes(registry(), name, empty);
      expect(await registry().blobSize(name, digestOf(empty))).to.equal(0);
      expect(await readBlob(registry(), name, empty)).to.deep.equal(empty);
    });

    it('takes a blob that comes in pieces of all sizes', async () => {
      const name = repository();
      const bytes = randomBytes(12_345_678);
      await registry().pushBlob(name, descriptorOf(bytes, MediaType.layer), async function* () {
        for (let start = 0, size = 1; start < bytes.length; start += size, size = (size * 3) % 1_000_003) {
          yield bytes.subarray(start, start + size);
          await Promise.resolve();
        }
      });
      expect((await readBlob(registry(), name, bytes)).equals(bytes)).to.equal(true);
    });

    unless('sha512')('takes a blob under its sha512 digest', async () => {
      const name = repository();
      const bytes = randomBytes(1000);
      const digest = digestOf(bytes, 'sha512');
      await registry().pushBlob(name, { digest, size: bytes.length }, () => [bytes]);
      expect(await registry().blobSize(name, digest)).to.equal(bytes.length);
    });

    it('takes one blob twice, also at the same time', async () => {
      const name = repository();
      const bytes = randomBytes(50_000);
      await Promise.all([1, 2, 3].map(() => pushBytes(registry(), name, bytes)));
      await pushBytes(registry(), name, bytes);
      expect((await readBlob(registry(), name, bytes)).equals(bytes)).to.equal(true);
    });

    it('refuses bytes that do not hash to the digest', async () => {
      const name = repository();
      const bytes = randomBytes(1000);
      const digest = digestOf('something else');
      await expectFailure(
        registry().pushBlob(name, { digest, size: 1000 }, () => [bytes]),
        'DIGEST_MISMATCH',
      );
      expect(await registry().blobSize(name, digest)).to.equal(undefined);
    });

    it('refuses more bytes than announced, and fewer', async () => {
      const name = repository();
      for (const size of [999, 1001]) {
        const bytes = randomBytes(1000);
        const digest = digestOf(bytes);
        await expectFailure(
          registry().pushBlob(name, { digest, size }, () => [bytes]),
          'DIGEST_MISMATCH',
        );
        expect(await registry().blobSize(name, digest)).to.equal(undefined);
      }
    });

    it('fails with the source, and keeps nothing', async () => {
      const name = repository();
      const bytes = randomBytes(100_000);
      const failure = new Error('the disk is gone');
      let caught: unknown;
      try {
        await registry().pushBlob(name, descriptorOf(bytes, MediaType.layer), async function* () {
          yield bytes.subarray(0, 50_000);
          await Promise.resolve();
          throw failure;
        });
      } catch (error) {
        caught = error;
      }
      expect(caught).to.be.instanceOf(Error);
      expect(await registry().blobSize(name, digestOf(bytes))).to.equal(undefined);
    });

    it('stops when its caller gives up, and keeps nothing', async () => {
      const name = repository();
      const bytes = randomBytes(100_000);
      const abort = new AbortController();
      const push = registry().pushBlob(
        name,
        descriptorOf(bytes, MediaType.layer),
        async function* () {
          yield bytes.subarray(0, 50_000);
          abort.abort();
          await new Promise((resolve) => setTimeout(resolve, 20));
          yield bytes.subarray(50_000);
        },
        { signal: abort.signal },
      );
      await expectFailure(push, 'ABORTED');
      expect(await registry().blobSize(name, digestOf(bytes))).to.equal(undefined);
    });

    unless('mount')('mounts a blob from another repository', async () => {
      const [source, target] = [repository(), repository()];
      const bytes = randomBytes(1000);
      const { digest } = await pushBytes(registry(), source, bytes);
      expect(await registry().mountBlob(target, digest, source)).to.equal(true);
      expect(await readBlob(registry(), target, bytes)).to.deep.equal(bytes);
    });

    it('does not mount what the other repository lacks', async () => {
      const [source, target] = [repository(), repository()];
      await pushBytes(registry(), source, Buffer.from('x'));
      expect(await registry().mountBlob(target, digestOf(randomBytes(8)), source)).to.equal(false);
    });

    it('moves a tag to the manifest pushed last', async () => {
      const name = repository();
      const first = await pushImage(registry(), name, 'first', { tag: 'latest' });
      const second = await pushImage(registry(), name, 'second', { tag: 'latest' });
      expect(await registry().resolve(name, 'latest')).to.deep.equal(second);
      expect(await registry().resolve(name, first.digest)).to.deep.equal(first);
    });

    it('names a manifest that is there', async () => {
      const name = repository();
      const pushed = await pushImage(registry(), name, 'image');
      await registry().tag(name, pushed.digest, 'stable');
      expect(await registry().resolve(name, 'stable')).to.deep.equal(pushed);
      await expectFailure(registry().tag(name, digestOf('nothing'), 'none'), 'NOT_FOUND');
    });

    it('takes a manifest of nearly 4 MiB', async () => {
      const name = repository();
      const config = Buffer.from('{}');
      await pushBytes(registry(), name, config);
      const bytes = imageManifest(config, [], {
        annotations: { padding: 'x'.repeat(MAX_MANIFEST_SIZE - 1000) },
      });
      const { digest } = await registry().pushManifest(name, MediaType.manifest, bytes);
      expect(digestOf((await registry().fetchManifest(name, digest)).bytes)).to.equal(digestOf(bytes));
    });

    unless('missing parts')('refuses a manifest with parts that are missing', async () => {
      const name = repository();
      const config = Buffer.from('{}');
      const layer = randomBytes(10);
      await pushBytes(registry(), name, config);
      const elsewhere = await pushImage(registry(), repository(), 'elsewhere');
      for (const [mediaType, bytes] of [
        [MediaType.manifest, imageManifest(config, [layer])],
        [MediaType.manifest, imageManifest(layer, [])],
        [MediaType.index, imageIndex([{ ...elsewhere, digest: digestOf('no manifest') }])],
      ] as const) {
        await expectFailure(registry().pushManifest(name, mediaType, bytes), 'REGISTRY', 'NOT_FOUND');
        await expectFailure(registry().resolve(name, digestOf(bytes)), 'NOT_FOUND');
      }
    });

    it('refuses a manifest that is none', async () => {
      const name = repository();
      await pushBytes(registry(), name, Buffer.from('x'));
      for (const text of ['not JSON', '[]', '{"schemaVersion":2}']) {
        let caught: unknown;
        try {
          await registry().pushManifest(name, MediaType.manifest, Buffer.from(text), { tag: 'bad' });
        } catch (error) {
          caught = error;
        }
        // Registries name it in different ways: invalid, a wrong digest, a missing blob.
        expect(isLayercacheError(caught), String(caught)).to.equal(true);
        await expectFailure(registry().resolve(name, 'bad'), 'NOT_FOUND');
      }
    });
  });
}
