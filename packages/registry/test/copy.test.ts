import { digestOf, MediaType, type Descriptor } from '@layercache/oci';
import { expect } from 'chai';
import { copy, type CopyEvent } from '../src/copy.js';
import { forward } from '../src/forward.js';
import { MemoryRegistry } from '../src/memory-registry.js';
import type { Registry } from '../src/registry.js';
import { failureOf } from './client/scripted.js';
import { imageIndex, pushImage } from './images.js';

function recorder(): {
  events: CopyEvent[];
  onCopy: (event: CopyEvent) => void;
  count: (outcome: string) => number;
} {
  const events: CopyEvent[] = [];
  return {
    events,
    onCopy: (event) => events.push(event),
    count: (outcome) => events.filter((event) => event.outcome === outcome).length,
  };
}

async function pushIndex(registry: Registry, tag: string): Promise<Descriptor> {
  const images = [await pushImage(registry, 'app', 'one'), await pushImage(registry, 'app', 'two')];
  return registry.pushManifest('app', MediaType.index, imageIndex(images), { tag });
}

describe('copy', () => {
  it('brings an image index, its images and their blobs to another registry', async () => {
    const source = new MemoryRegistry();
    const target = new MemoryRegistry();
    const root = await pushIndex(source, 'v1');
    const { onCopy, count } = recorder();
    const copied = await copy(
      { registry: source, repository: 'app' },
      'v1',
      { registry: target, repository: 'team/app' },
      { onCopy },
    );
    expect(copied).to.deep.equal(root);
    expect((await target.resolve('team/app', 'v1')).digest).to.equal(root.digest);
    expect(count('copied')).to.equal(7);
  });

  it('sends nothing twice', async () => {
    const source = { registry: new MemoryRegistry(), repository: 'app' };
    const target = { registry: new MemoryRegistry(), repository: 'app' };
    await pushIndex(source.registry, 'v1');
    await copy(source, 'v1', target);
    const { onCopy, events, count } = recorder();
    await copy(source, 'v1', target, { onCopy, tag: 'v2' });
    expect([count('skipped'), count('copied')]).to.deep.equal([2, 1]);
    expect(events.at(-1)?.descriptor.mediaType).to.equal(MediaType.index);
    expect((await target.registry.resolve('app', 'v2')).digest).to.equal(events.at(-1)?.descriptor.digest);
  });

  it('mounts within one registry', async () => {
    const registry = new MemoryRegistry();
    await pushIndex(registry, 'v1');
    const { onCopy, count } = recorder();
    await copy({ registry, repository: 'app' }, 'v1', { registry, repository: 'new' }, { onCopy });
    expect([count('mounted'), count('copied')]).to.deep.equal([4, 3]);
  });

  it('leaves layers with their vendor that are not to be distributed', async () => {
    const source = new MemoryRegistry();
    const target = new MemoryRegistry();
    const foreign = {
      mediaType: MediaType.dockerForeignLayerGzip,
      digest: digestOf('elsewhere'),
      size: 9,
      urls: ['https://vendor.example/layer'],
    };
    const config = Buffer.from('{}');
    const configDescriptor = { mediaType: MediaType.config, digest: digestOf(config), size: 2 };
    await source.pushBlob('app', configDescriptor, () => [config]);
    const manifest = { schemaVersion: 2, config: configDescriptor, layers: [foreign] };
    const bytes = Buffer.from(JSON.stringify(manifest));
    const { digest } = await source.pushManifest('app', MediaType.dockerManifest, bytes);
    await copy({ registry: source, repository: 'app' }, digest, { registry: target, repository: 'app' });
    expect(await target.blobSize('app', foreign.digest)).to.equal(undefined);
    expect((await target.resolve('app', digest)).digest).to.equal(digest);
  });

  it('tags nothing when a blob fails, says which, and leaves the rest alone', async () => {
    const source = new MemoryRegistry();
    const target = new MemoryRegistry();
    await pushIndex(source, 'v1');
    const lost = digestOf('layer two');
    await source.deleteBlob('app', lost);
    const failure = await failureOf(
      copy({ registry: source, repository: 'app' }, 'v1', { registry: target, repository: 'app' }),
    );
    expect(failure.code).to.equal('NOT_FOUND');
    expect(failure.message).to.include(lost);
    expect((await failureOf(target.resolve('app', 'v1'))).code).to.equal('NOT_FOUND');
  });

  it('keeps to its limit of transfers at the same time', async () => {
    const source = new MemoryRegistry();
    await pushIndex(source, 'v1');
    let open = 0;
    let most = 0;
    const memory = new MemoryRegistry();
    const target: Registry = {
      ...forward(memory),
      async pushBlob(...all) {
        open += 1;
        most = Math.max(most, open);
        await new Promise((resolve) => setTimeout(resolve, 5));
        await memory.pushBlob(...all);
        open -= 1;
      },
    };
    await copy(
      { registry: source, repository: 'app' },
      'v1',
      { registry: target, repository: 'app' },
      { concurrency: 2 },
    );
    expect(most).to.equal(2);
  });

  it('ends when the caller gives up', async () => {
    const source = new MemoryRegistry();
    await pushIndex(source, 'v1');
    const failure = await failureOf(
      copy(
        { registry: source, repository: 'app' },
        'v1',
        { registry: new MemoryRegistry(), repository: 'app' },
        { signal: AbortSignal.abort() },
      ),
    );
    expect(failure.code).to.equal('ABORTED');
  });
});
