import { MediaType, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { imageManifest, pushBytes, pushImage } from '../images.js';
import { bytesOf, errorCode, serving } from './serving.js';

const CONFIG = Buffer.from('{"os":"linux"}');
const LAYER = Buffer.from('a layer of an image');

describe('the registry server', () => {
  it('says that it is a registry', () =>
    serving(async (url) => {
      const response = await fetch(`${url}/v2/`);
      expect(response.status).to.equal(200);
      expect(response.headers.get('docker-distribution-api-version')).to.equal('registry/2.0');
      expect(await response.json()).to.deep.equal({});
    }));

  it('takes a blob by POST and PUT and gives it back', () =>
    serving(async (url) => {
      const digest = digestOf(LAYER);
      const opened = await fetch(`${url}/v2/team/app/blobs/uploads/`, { method: 'POST' });
      expect(opened.status).to.equal(202);
      const location = new URL(opened.headers.get('location')!, url);
      location.searchParams.set('digest', digest);
      const stored = await fetch(location, { method: 'PUT', body: LAYER });
      expect(stored.status).to.equal(201);
      expect(stored.headers.get('docker-content-digest')).to.equal(digest);

      const got = await fetch(new URL(stored.headers.get('location')!, url));
      expect(got.status).to.equal(200);
      expect(got.headers.get('docker-content-digest')).to.equal(digest);
      expect(got.headers.get('content-length')).to.equal(String(LAYER.length));
      expect(await bytesOf(got)).to.deep.equal(LAYER);

      const head = await fetch(`${url}/v2/team/app/blobs/${digest}`, { method: 'HEAD' });
      expect(head.status).to.equal(200);
      expect(head.headers.get('content-length')).to.equal(String(LAYER.length));
    }));

  it('takes a blob by a single POST, with its length announced or not', () =>
    serving(async (url) => {
      for (const text of ['announced', 'in pieces']) {
        const bytes = Buffer.from(text);
        const body =
          text === 'announced' ? bytes : ReadableStream.from([bytes.subarray(0, 3), bytes.subarray(3)]);
        const stored = await fetch(`${url}/v2/app/blobs/uploads/?digest=${digestOf(bytes)}`, {
          method: 'POST',
          body,
          duplex: 'half',
        });
        expect(stored.status).to.equal(201);
        const got = await fetch(new URL(stored.headers.get('location')!, url));
        expect(await bytesOf(got)).to.deep.equal(bytes);
      }
    }));

  it('refuses bytes that do not hash to the digest, and keeps nothing', () =>
    serving(async (url) => {
      const digest = digestOf('something else');
      const refused = await fetch(`${url}/v2/app/blobs/uploads/?digest=${digest}`, {
        method: 'POST',
        body: LAYER,
      });
      expect(refused.status).to.equal(400);
      expect(await errorCode(refused)).to.equal('DIGEST_INVALID');
      expect((await fetch(`${url}/v2/app/blobs/${digest}`, { method: 'HEAD' })).status).to.equal(404);
    }));

  it('stores a manifest under its tag and its digest, byte for byte', () =>
    serving(async (url, registry) => {
      for (const blob of [CONFIG, LAYER]) await pushBytes(registry, 'app', blob);
      const manifest = imageManifest(CONFIG, [LAYER]);
      const digest = digestOf(manifest);
      const stored = await fetch(`${url}/v2/app/manifests/1.0`, {
        method: 'PUT',
        body: manifest,
        headers: { 'Content-Type': `${MediaType.manifest}; charset=utf-8` },
      });
      expect(stored.status).to.equal(201);
      expect(stored.headers.get('docker-content-digest')).to.equal(digest);
      for (const where of [`/v2/app/manifests/1.0`, stored.headers.get('location')!]) {
        const got = await fetch(new URL(where, url));
        expect(got.status).to.equal(200);
        expect(got.headers.get('content-type')).to.equal(MediaType.manifest);
        expect(got.headers.get('docker-content-digest')).to.equal(digest);
        expect(await bytesOf(got)).to.deep.equal(manifest);
        const head = await fetch(new URL(where, url), { method: 'HEAD' });
        expect(head.headers.get('content-length')).to.equal(String(manifest.length));
        expect(head.headers.get('content-type')).to.equal(MediaType.manifest);
      }
    }));

  it('answers 404 with the code of what is missing', () =>
    serving(async (url, registry) => {
      await pushImage(registry, 'app', 'x', { tag: 'x' });
      const nothing = digestOf('nothing');
      const missing = [
        [`/v2/app/blobs/${nothing}`, 'BLOB_UNKNOWN'],
        [`/v2/app/manifests/${nothing}`, 'MANIFEST_UNKNOWN'],
        ['/v2/app/manifests/y', 'MANIFEST_UNKNOWN'],
        ['/v2/app/manifests/.INVALID', 'MANIFEST_UNKNOWN'],
        ['/v2/none/tags/list', 'NAME_UNKNOWN'],
        ['/v2/app/blobs/uploads/none', 'BLOB_UPLOAD_UNKNOWN'],
        ['/elsewhere', 'NAME_UNKNOWN'],
      ] as const;
      for (const [path, code] of missing) {
        const response = await fetch(url + path);
        expect(response.status, path).to.equal(404);
        expect(await errorCode(response), path).to.equal(code);
      }
    }));
});
