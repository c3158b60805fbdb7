import { MediaType, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { noCredentials } from '../src/client/credentials.js';
import { RegistryClient } from '../src/client/registry-client.js';
import { MemoryRegistry } from '../src/memory-registry.js';
import { readOnly } from '../src/read-only.js';
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
});
