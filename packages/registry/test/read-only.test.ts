import { MediaType, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { noCredentials } from '../src/client/credentials.js';
import { RegistryClient } from '../src/client/registry-client.js';
import { MemoryRegistry } from '../src/memory-registry.js';
import { isReadOnly, readOnly } from '../src/read-only.js';
import { createRegistryServer } from '../src/server/registry-server.js';
import { failureOf } from './client/scripted.js';
import { pushBytes, pushImage } from './images.js';

describe('a registry for readers only', () => {
  it('is read', async () => {
    const memory = new MemoryRegistry();
    const { digest } = await pushImage(memory, 'app', 'one', { tag: 'v1' });
    expect((await readOnly(memory).resolve('app', 'v1')).digest).to.equal(digest);
  });

  it('is not changed', async () => {
    const memory = new MemoryRegistry();
    const image = await pushImage(memory, 'app', 'one', { tag: 'v1' });
    const registry = readOnly(memory);
    const { bytes } = await registry.fetchManifest('app', 'v1');
    for (const attempt of [
      () => registry.pushBlob('app', { digest: digestOf('x'), size: 1 }, () => [Buffer.from('x')]),
      () => registry.mountBlob('other', image.digest, 'app'),
      () => registry.pushManifest('app', MediaType.manifest, bytes, { tag: 'v2' }),
      () => registry.tag('app', image.digest, 'v2'),
      () => registry.deleteManifest('app', 'v1'),
      () => registry.deleteBlob('app', image.digest),
    ]) {
      expect((await failureOf(attempt())).code).to.equal('UNSUPPORTED');
    }
    const tags: string[] = [];
    for await (const tag of registry.tags('app')) tags.push(tag);
    expect(tags).to.deep.equal(['v1']);
  });

  it('answers 405 over HTTP', async () => {
    const server = createRegistryServer(readOnly(new MemoryRegistry()));
    await server.listen({ host: '127.0.0.1', port: 0 });
    try {
      const client = new RegistryClient(new URL(server.url).host, { credentials: noCredentials });
      const failure = await failureOf(pushBytes(client, 'app', Buffer.from('x')));
      expect(failure.message).to.include('status 405').and.to.include('read-only');
    } finally {
      await server.close();
    }
  });

  it('takes no byte over HTTP, begins no upload, and still is read', async () => {
    const memory = new MemoryRegistry();
    const image = await pushImage(memory, 'app', 'one', { tag: 'v1' });
    const server = createRegistryServer(readOnly(memory));
    await server.listen({ host: '127.0.0.1', port: 0 });
    try {
      const uploads = '/v2/app/blobs/uploads/';
      for (const [method, path] of [
        ['POST', uploads],
        ['POST', `${uploads}?digest=${digestOf('x')}`],
        ['POST', `${uploads}?mount=${image.digest}&from=app`],
        ['POST', `${uploads}?mount=${image.digest}`],
        ['PATCH', `${uploads}some-upload`],
        ['PUT', `${uploads}some-upload?digest=${digestOf('x')}`],
        ['DELETE', `${uploads}some-upload`],
        ['PUT', '/v2/app/manifests/v2'],
        ['PUT', `/v2/app/manifests/${image.digest}?tag=v2`],
        ['DELETE', '/v2/app/manifests/v1'],
        ['DELETE', `/v2/app/manifests/${image.digest}`],
        ['DELETE', `/v2/app/blobs/${image.digest}`],
      ] as const) {
        const refused = await fetch(`${server.url}${path}`, {
          method,
          ...(method === 'DELETE' ? {} : { body: 'x' }),
        });
        expect(refused.status, `${method} ${path}`).to.equal(405);
        const { errors } = (await refused.json()) as { errors: { code: string; message: string }[] };
        expect(errors[0]).to.deep.equal({ code: 'UNSUPPORTED', message: 'this registry is read-only' });
        expect(refused.headers.get('allow')).to.equal('GET, HEAD');
      }
      const manifest = await fetch(`${server.url}/v2/app/manifests/v1`);
      expect(digestOf(Buffer.from(await manifest.arrayBuffer()))).to.equal(image.digest);
      expect((await fetch(`${server.url}/v2/app/manifests/v2`)).status).to.equal(404);
    } finally {
      await server.close();
    }
  });

  it('is told from one for all', () => {
    const memory = new MemoryRegistry();
    expect(isReadOnly(memory)).to.equal(false);
    expect(isReadOnly(readOnly(memory))).to.equal(true);
  });
});
