import { writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { LayercacheError, MediaType, digestOf, type Descriptor, type ErrorCode } from '@layercache/oci';
import { OciLayout, nodeFileSystem } from '@layercache/layout';
import { ImageGraph, refersToNothing } from '../../src/images/image-graph.js';
import { encodeCacheIndex } from '../../src/index.js';
import { imageOf, layerOf, tarOf } from '../image-builder.js';
import { Scratch, failure } from '../test-cache.js';

describe('the graph of images', () => {
  const scratch = new Scratch();
  const image = imageOf([layerOf(tarOf({ a: 'a' })), layerOf(tarOf({ b: 'b' }))]);
  const indexBytes = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests: [image.descriptor] }),
  );
  const index: Descriptor = {
    mediaType: MediaType.index,
    digest: digestOf(indexBytes),
    size: indexBytes.length,
  };
  let layout: OciLayout;

  beforeEach(async () => {
    layout = await OciLayout.open(await scratch.dir());
    for (const bytes of [image.bytes, indexBytes]) await layout.write(bytes);
    await layout.put([index, image.descriptor]);
  });
  afterEach(async () => {
    await layout.close();
    await scratch.clean();
  });

  it('follows an index to the configs and layers of its images', async () => {
    const { manifests, blobs } = await new ImageGraph(layout).closure(index);
    expect(manifests.map(({ digest }) => digest)).to.deep.equal([index.digest, image.descriptor.digest]);
    expect(blobs.map(({ digest }) => digest)).to.deep.equal([
      image.config.descriptor.digest,
      ...image.layers.map((layer) => layer.descriptor.digest),
    ]);
  });

  it('takes a manifest that is not here, or corrupt, for one that refers to nothing, and leaves it as it is', async () => {
    const graph = new ImageGraph(layout);
    const absent = { ...image.descriptor, digest: digestOf('absent') };
    expect((await graph.closure(absent)).blobs).to.deep.equal([]);
    const path = layout.blobPath(image.descriptor.digest);
    await writeFile(path, Buffer.alloc(image.bytes.length, 0x20));
    expect((await graph.closure(index)).blobs).to.deep.equal([]);
    expect(await layout.has(image.descriptor.digest)).to.equal(true);
    await writeFile(path, image.bytes);
    expect((await graph.closure(index)).blobs, 'what is mended is read again').to.have.length(3);
  });

  for (const code of ['EMFILE', 'EIO', 'ESTALE', 'EACCES', 'ENFILE']) {
    it(`fails when a manifest cannot be opened for ${code}`, async () => {
      const open = nodeFileSystem.open.bind(nodeFileSystem);
      nodeFileSystem.open = () => Promise.reject(Object.assign(new Error(code), { code, syscall: 'open' }));
      try {
        await failure('STORAGE', () => new ImageGraph(layout).closure(index));
      } finally {
        nodeFileSystem.open = open;
      }
    });
  }

  it('lets no other error pass for a manifest that refers to nothing', () => {
    const codes: readonly ErrorCode[] = ['STORAGE', 'ABORTED', 'LOCK_TIMEOUT', 'NETWORK', 'CACHE_FULL'];
    for (const code of codes) expect(refersToNothing(new LayercacheError(code, '')), code).to.equal(false);
  });

  it('tells a cache index and its shards by what is in them, and follows neither to what they list', async () => {
    const [layer] = image.layers;
    const built = encodeCacheIndex([layer!.descriptor], [image.descriptor]);
    await layout.write(built.bytes);
    for (const shard of built.shards) await layout.write(shard.bytes);
    const plain: Descriptor = {
      mediaType: MediaType.index,
      digest: built.descriptor.digest,
      size: built.descriptor.size,
    };
    const graph = new ImageGraph(layout);
    expect((await graph.node(plain)).kind).to.equal('cache index');
    const { manifests, blobs } = await graph.closure(plain);
    expect(manifests.map(({ digest }) => digest)).to.deep.equal([
      plain.digest,
      built.shards[0]!.descriptor.digest,
    ]);
    expect(blobs.map(({ digest }) => digest)).to.deep.equal([built.shards[0]!.config.descriptor.digest]);
  });
});
