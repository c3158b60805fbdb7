import { LayercacheError, MAX_MANIFEST_SIZE, MediaType, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { imageIndex, imageManifest, pushBytes, pushImage } from '../images.js';
import { bytesOf, errorCode, serving } from './serving.js';

const CONFIG = Buffer.from('{"os":"linux"}');

function put(
  where: string,
  body: Uint8Array<ArrayBuffer> | string,
  type: string = MediaType.manifest,
): Promise<Response> {
  return fetch(where, { method: 'PUT', body, headers: { 'Content-Type': type } });
}

describe('pushing a manifest', () => {
  it('is refused when a manifest that it lists is missing', () =>
    serving(async (url) => {
      const child = { mediaType: MediaType.manifest, digest: digestOf('child'), size: 5 };
      const refused = await put(`${url}/v2/app/manifests/1`, imageIndex([child]), MediaType.index);
      expect(refused.status).to.equal(400);
      expect(await errorCode(refused)).to.equal('MANIFEST_BLOB_UNKNOWN');
    }));

  it('is refused when a blob of it is missing', () =>
    serving(async (url) => {
      const refused = await put(`${url}/v2/app/manifests/1`, imageManifest(CONFIG, []));
      expect(refused.status).to.equal(400);
      expect(await errorCode(refused)).to.equal('MANIFEST_BLOB_UNKNOWN');
    }));

  it('is refused with the same code when the registry says only that something is missing', async () => {
    const registry = new MemoryRegistry();
    registry.pushManifest = () => Promise.reject(new LayercacheError('NOT_FOUND', 'there is no config'));
    await serving(
      async (url) => {
        const refused = await put(`${url}/v2/app/manifests/1`, imageManifest(CONFIG, []));
        expect(refused.status).to.equal(400);
        expect(await errorCode(refused)).to.equal('MANIFEST_BLOB_UNKNOWN');
      },
      { registry },
    );
  });

  it('by digest is refused when the bytes hash to another', () =>
    serving(async (url, registry) => {
      await pushBytes(registry, 'app', CONFIG);
      const bytes = imageManifest(CONFIG, []);
      for (const digest of [digestOf('other'), digestOf(bytes, 'sha512')]) {
        const refused = await put(`${url}/v2/app/manifests/${digest}`, bytes);
        expect(refused.status).to.equal(400);
        expect(await errorCode(refused)).to.equal('DIGEST_INVALID');
      }
      expect((await put(`${url}/v2/app/manifests/${digestOf(bytes)}`, bytes)).status).to.equal(201);
    }));

  it('by digest takes several tags at once', () =>
    serving(async (url, registry) => {
      await pushBytes(registry, 'app', CONFIG);
      const bytes = imageManifest(CONFIG, []);
      const stored = await put(
        `${url}/v2/app/manifests/${digestOf(bytes)}?tag=1.2.3&tag=1.2&tag=latest`,
        bytes,
      );
      expect(stored.status).to.equal(201);
      expect(stored.headers.get('oci-tag')).to.equal('1.2.3, 1.2, latest');
      for (const tag of ['1.2.3', '1.2', 'latest']) {
        expect(await bytesOf(await fetch(`${url}/v2/app/manifests/${tag}`))).to.deep.equal(bytes);
      }
    }));

  const refused: readonly (readonly [string, string, string])[] = [
    ['that is not JSON', '<html>', MediaType.manifest],
    ['that is an array', '[]', MediaType.manifest],
    ['without a config', '{"schemaVersion":2,"layers":[]}', MediaType.manifest],
    [
      'with a digest that is a path',
      '{"schemaVersion":2,"manifests":[{"mediaType":"a/b","size":1,"digest":"sha256:../../x"}]}',
      MediaType.index,
    ],
    [
      'that says it is something else',
      `{"schemaVersion":2,"mediaType":"${MediaType.index}","manifests":[]}`,
      MediaType.manifest,
    ],
    ['without any media type', '{"schemaVersion":2,"manifests":[]}', ''],
  ];
  for (const [what, body, type] of refused) {
    it(`${what} is refused`, () =>
      serving(async (url) => {
        const response = await put(`${url}/v2/app/manifests/1`, body, type);
        expect(response.status).to.equal(400);
        expect(await errorCode(response)).to.equal('MANIFEST_INVALID');
      }));
  }

  it('under what is neither a tag nor a digest is refused', () =>
    serving(async (url) => {
      for (const reference of ['.dot', 'a'.repeat(129), 'sha256:abc']) {
        const response = await put(`${url}/v2/app/manifests/${reference}`, imageIndex([]), MediaType.index);
        expect(response.status).to.equal(400);
      }
    }));

  it('takes 4 MiB and not a byte more', () =>
    serving(async (url) => {
      const sized = (size: number): Buffer<ArrayBuffer> => {
        const padding = imageIndex([], { annotations: { padding: '' } }).length;
        return imageIndex([], { annotations: { padding: 'x'.repeat(size - padding) } });
      };
      const largest = sized(MAX_MANIFEST_SIZE);
      expect(largest.length).to.equal(MAX_MANIFEST_SIZE);
      expect((await put(`${url}/v2/app/manifests/1`, largest, MediaType.index)).status).to.equal(201);
      const tooLarge = await put(`${url}/v2/app/manifests/2`, sized(MAX_MANIFEST_SIZE + 1), MediaType.index);
      expect(tooLarge.status).to.equal(413);
      expect(await errorCode(tooLarge)).to.equal('SIZE_INVALID');
    }));

  it('with a subject says that the subject was understood', () =>
    serving(async (url, registry) => {
      const subject = await pushImage(registry, 'app', 'subject');
      const plain = await put(`${url}/v2/app/manifests/1`, imageIndex([]), MediaType.index);
      expect(plain.headers.get('oci-subject')).to.equal(null);
      const referring = await put(`${url}/v2/app/manifests/2`, imageIndex([], { subject }), MediaType.index);
      expect(referring.headers.get('oci-subject')).to.equal(subject.digest);
    }));
});

describe('deleting', () => {
  it('a tag leaves the manifest', () =>
    serving(async (url, registry) => {
      const { digest } = await pushImage(registry, 'app', 'x', { tag: '1' });
      expect((await fetch(`${url}/v2/app/manifests/1`, { method: 'DELETE' })).status).to.equal(202);
      expect((await fetch(`${url}/v2/app/manifests/1`)).status).to.equal(404);
      expect((await fetch(`${url}/v2/app/manifests/${digest}`)).status).to.equal(200);
    }));

  it('a manifest takes its tags along', () =>
    serving(async (url, registry) => {
      const { digest } = await pushImage(registry, 'app', 'x', { tag: '1' });
      expect((await fetch(`${url}/v2/app/manifests/${digest}`, { method: 'DELETE' })).status).to.equal(202);
      expect((await fetch(`${url}/v2/app/manifests/1`)).status).to.equal(404);
      const again = await fetch(`${url}/v2/app/manifests/${digest}`, { method: 'DELETE' });
      expect(again.status).to.equal(404);
      expect(await errorCode(again)).to.equal('MANIFEST_UNKNOWN');
    }));

  it('a blob removes it', () =>
    serving(async (url, registry) => {
      const { digest } = await pushBytes(registry, 'app', CONFIG);
      expect((await fetch(`${url}/v2/app/blobs/${digest}`, { method: 'DELETE' })).status).to.equal(202);
      expect((await fetch(`${url}/v2/app/blobs/${digest}`)).status).to.equal(404);
      const again = await fetch(`${url}/v2/app/blobs/${digest}`, { method: 'DELETE' });
      expect(await errorCode(again)).to.equal('BLOB_UNKNOWN');
    }));
});
