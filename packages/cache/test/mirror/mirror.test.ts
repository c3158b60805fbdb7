import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, digestHex, digestOf } from '@layercache/oci';
import {
  MemoryRegistry,
  RegistryClient,
  RegistryError,
  createRegistryServer,
  noCredentials,
  type Registry,
} from '@layercache/registry';
import type { LayerCache, LayerCacheOptions } from '../../src/index.js';
import { imageOf, layerOf, pushImage, pushIndex, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure } from '../test-cache.js';

/** What stands before the upstream: true when it has answered itself. */
type Front = (request: IncomingMessage, response: ServerResponse) => boolean;

describe('a pull-through mirror', () => {
  const scratch = new Scratch();
  const servers: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    await scratch.clean();
    for (const server of servers.splice(0)) await server.close();
  });

  const layers = [80_000, 50_000].map((size) => layerOf(tarOf({ data: randomBytes(size) })));
  const image = imageOf(layers);

  const client = (url: string): RegistryClient =>
    new RegistryClient(new URL(url).host, { credentials: noCredentials, retry: { attempts: 1 } });

  async function serve(
    registry: Registry,
    front: Front = () => false,
  ): Promise<{ url: string; lines: string[] }> {
    const lines: string[] = [];
    const server = createRegistryServer(registry, {
      wrap: (handler) => (request, response) => {
        lines.push(
          `${request.method} ${request.url?.replace(/^\/v2\//, '').replace(/sha256:(.{6}).*/, '$1')}`,
        );
        if (!front(request, response)) handler(request, response);
      },
    });
    servers.push(server);
    await server.listen({ host: '127.0.0.1', port: 0 });
    return { url: server.url, lines };
  }

  /** An upstream with an image, and a mirror before it. */
  async function mirrored(
    options: LayerCacheOptions & { readonly front?: Front; readonly dir?: string } = {},
  ): Promise<{
    source: MemoryRegistry;
    upstream: string[];
    host: string;
    cache: LayerCache;
    mirror: RegistryClient;
    open: () => RegistryClient;
  }> {
    const { front, ...rest } = options;
    const source = new MemoryRegistry();
    await pushImage(source, 'team/app', '1', image);
    const { url, lines } = await serve(source, front);
    const { host } = new URL(url);
    const cache = await scratch.cache({ registry: () => client(url), ...rest });
    const front2 = await serve(cache.mirror(host));
    return {
      source,
      upstream: lines,
      host,
      cache,
      mirror: client(front2.url),
      open: () => client(front2.url),
    };
  }

  /** Everything that a client of a registry fetches of an image. */
  async function pull(registry: Registry, name = 'team/app', reference = '1'): Promise<void> {
    const { digest } = await registry.resolve(name, reference);
    const manifest = await registry.fetchManifest(name, digest);
    expect(digestOf(manifest.bytes)).to.equal(image.descriptor.digest);
    for (const { descriptor } of [image.config, ...layers]) {
      const bytes = await bytesOf((await registry.fetchBlob(name, descriptor.digest)).body);
      expect(digestOf(bytes)).to.equal(descriptor.digest);
    }
  }

  it('asks the upstream once for everything, and has the image as if it had been added', async () => {
    const { upstream, mirror, host, cache } = await mirrored();
    await pull(mirror);
    expect(upstream.map((line) => line.split('/')[0])).to.deep.equal([
      'HEAD team',
      'GET team',
      'GET team',
      'GET team',
      'GET team',
    ]);
    await pull(mirror);
    expect(upstream).to.have.length(5);
    expect([...cache.images()].map(({ name, descriptor }) => [name, descriptor.digest])).to.deep.equal([
      [`${host}/team/app:1`, image.descriptor.digest],
    ]);
    expect(await bytesOf(cache.layer(layers[0]!.diffID).uncompressed())).to.deep.equal(layers[0]!.tar);
    expect((await cache.add(`${host}/team/app:1`)).fetched).to.equal(0);
    expect((await cache.verify()).problems).to.deep.equal([]);
    const { counters } = cache.metrics.snapshot();
    expect(counters.bytesSaved).to.be.at.least(counters.bytesDownloaded);
  });

  it('knows the layers of an image by both names before anyone asked for their bytes', async () => {
    const { mirror, cache, upstream } = await mirrored();
    await mirror.fetchManifest('team/app', '1');
    expect(upstream).to.have.length(3);
    const layer = cache.layer(layers[1]!.diffID);
    expect(layer.digests).to.deep.equal([layers[1]!.descriptor.digest]);
    expect(await cache.blobState(layers[1]!.descriptor)).to.equal('remote');
    expect(await bytesOf(layer.compressed())).to.deep.equal(layers[1]!.bytes);
  });

  it('lets those who want the same at the same time share one fetch', async () => {
    const { upstream, open } = await mirrored();
    await Promise.all(Array.from({ length: 6 }, () => pull(open())));
    expect([...upstream].sort()).to.deep.equal([...new Set(upstream)].sort());
    expect(upstream).to.have.length(5);
  });

  it('hands out a blob while it is still coming, to all who want it', async () => {
    let release: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const big = layerOf(tarOf({ data: randomBytes(4_000_000) }));
    let opened = 0;
    const { source, open } = await mirrored({
      front: (request, response) => {
        if (request.method !== 'GET' || request.url?.endsWith(big.descriptor.digest) !== true) return false;
        opened += 1;
        response.writeHead(200, { 'content-length': big.bytes.length });
        response.write(big.bytes.subarray(0, 3_000_000));
        void gate.then(() => response.end(big.bytes.subarray(3_000_000)));
        return true;
      },
    });
    await source.pushBlob('team/app', big.descriptor, () => [big.bytes]);
    const bodies = await Promise.all(
      [1, 2, 3].map(async () => (await open().fetchBlob('team/app', big.descriptor.digest)).body),
    );
    const whole = bodies.map(async (body) => {
      const chunks: Buffer[] = [];
      for await (const chunk of body) {
        chunks.push(chunk as Buffer);
        // The upstream sends the rest when each of them has some.
        if (chunks.length === 1 && ++started === bodies.length) release?.();
      }
      return Buffer.concat(chunks);
    });
    let started = 0;
    for (const bytes of await Promise.all(whole)) expect(bytes.equals(big.bytes)).to.equal(true);
    expect(opened).to.equal(1);
  });

  it('breaks off a blob that turns out to be wrong, and keeps nothing of it', async () => {
    const [layer] = layers;
    const { mirror, cache } = await mirrored({
      front: (request, response) => {
        if (request.method !== 'GET' || request.url?.endsWith(layer!.descriptor.digest) !== true)
          return false;
        const wrong = Buffer.from(layer!.bytes);
        wrong[wrong.length - 1]! ^= 1;
        response.end(wrong);
        return true;
      },
    });
    await mirror.fetchManifest('team/app', '1');
    const got: Buffer[] = [];
    const broken = await (async (): Promise<boolean> => {
      try {
        const { body } = await mirror.fetchBlob('team/app', layer!.descriptor.digest);
        for await (const chunk of body) got.push(chunk as Buffer);
        return false;
      } catch {
        return true;
      }
    })();
    expect(broken).to.equal(true);
    expect(Buffer.concat(got).length).to.be.lessThan(layer!.bytes.length);
    expect(await cache.blobs.has(layer!.descriptor.digest)).to.equal(false);
  });

  it('goes on with a blob whose client left, when the next one comes', async () => {
    const big = layerOf(tarOf({ data: randomBytes(3_000_000) }));
    const ranges: (string | undefined)[] = [];
    const { source, mirror, cache } = await mirrored({
      front: (request, response) => {
        if (request.method !== 'GET' || request.url?.endsWith(big.descriptor.digest) !== true) return false;
        ranges.push(request.headers.range);
        if (ranges.length > 1) return false;
        response.writeHead(200, { 'content-length': big.bytes.length });
        response.write(big.bytes.subarray(0, 2_000_000));
        return true;
      },
    });
    await source.pushBlob('team/app', big.descriptor, () => [big.bytes]);
    const { body } = await mirror.fetchBlob('team/app', big.descriptor.digest);
    for await (const chunk of body) {
      expect(big.bytes.subarray(0, (chunk as Buffer).length)).to.deep.equal(chunk);
      break;
    }
    body.destroy();
    const again = await bytesOf((await mirror.fetchBlob('team/app', big.descriptor.digest)).body);
    expect(again.equals(big.bytes)).to.equal(true);
    expect(ranges).to.have.length(2);
    expect(ranges[1]).to.match(/^bytes=[1-9]\d+-$/);
    expect(await cache.blobs.has(big.descriptor.digest)).to.equal(true);
  });

  it('sees a tag move when its TTL is over, and keeps the old image without the name', async () => {
    const { source, mirror, cache, host } = await mirrored({ tagTTL: 60_000 });
    await pull(mirror);
    const next = imageOf([layers[0]!]);
    await pushImage(source, 'team/app', '1', next);
    expect((await mirror.resolve('team/app', '1')).digest).to.equal(image.descriptor.digest);
    await cache.tags.invalidate(`${host}/team/app:1`);
    expect((await mirror.fetchManifest('team/app', '1')).descriptor.digest).to.equal(next.descriptor.digest);
    expect(cache.image(`${host}/team/app:1`).digest).to.equal(next.descriptor.digest);
    expect(cache.image(image.descriptor.digest).digest).to.equal(image.descriptor.digest);
  });

  it('goes on without its upstream within the TTL, and after it when stale tags will do', async () => {
    const state = { down: false };
    const front: Front = (_, response) => {
      if (state.down) response.destroy();
      return state.down;
    };
    for (const staleIfError of [false, true]) {
      state.down = false;
      const { mirror, cache, host } = await mirrored({ front, staleIfError });
      await pull(mirror);
      state.down = true;
      await pull(mirror);
      const shut = await scratch.cache({
        dir: cache.dir,
        registry: () => client(`http://${host}`),
        tagTTL: 0,
        staleIfError,
      });
      const late = client((await serve(shut.mirror(host))).url);
      if (staleIfError) await pull(late);
      else {
        const error = await failure('REGISTRY', () => late.fetchManifest('team/app', '1'));
        expect(error).to.have.property('status', 502);
      }
    }
  });

  it('passes on that the upstream refuses, without a challenge that its clients could not answer', async () => {
    const { mirror } = await mirrored({
      front: (_, response) => {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="upstream"' });
        response.end('{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}');
        return true;
      },
    });
    const error = await failure('UNAUTHORIZED', () => mirror.fetchManifest('team/app', '1'));
    expect(error).to.be.instanceOf(RegistryError);
    expect(error).to.have.property('status', 403);
    expect(error).to.have.nested.property('reported[0].code', 'DENIED');
    expect(error.message).to.match(/refuses this to the mirror/);
  });

  it('passes on that the upstream wants fewer requests, and when it may be asked again', async () => {
    const { mirror } = await mirrored({
      front: (_, response) => {
        response.writeHead(429, { 'retry-after': '7' });
        response.end();
        return true;
      },
    });
    const error = await failure('REGISTRY', () => mirror.fetchManifest('team/app', '1'));
    expect(error).to.have.property('status', 429);
    expect(error).to.have.property('retryAfter', 7000);
    expect(error).to.have.nested.property('reported[0].code', 'TOOMANYREQUESTS');
  });

  it('has what the upstream has, and says so when that is nothing', async () => {
    const { mirror, source } = await mirrored();
    await failure('NOT_FOUND', () => mirror.fetchManifest('team/app', 'none'));
    await failure('NOT_FOUND', () => mirror.fetchManifest('team/app', digestOf('nothing')));
    await failure('NOT_FOUND', () => mirror.fetchBlob('team/app', digestOf('nothing')));
    expect(await mirror.blobSize('team/app', digestOf('nothing'))).to.equal(undefined);
    const loose = Buffer.from('a blob that no manifest refers to');
    const digest = digestOf(loose);
    await source.pushBlob('team/app', { digest, size: loose.length }, () => [loose]);
    expect(await mirror.blobSize('team/app', digest)).to.equal(loose.length);
    const range = { first: 2, last: 5 };
    expect(await bytesOf((await mirror.fetchBlob('team/app', digest, { range })).body)).to.deep.equal(
      loose.subarray(2, 6),
    );
    expect(await bytesOf((await mirror.fetchBlob('team/app', digest)).body)).to.deep.equal(loose);
    const listed: string[] = [];
    for await (const tag of mirror.tags('team/app')) listed.push(tag);
    for await (const name of mirror.repositories()) listed.push(name);
    expect(listed).to.deep.equal(['1', 'team/app']);
  });

  it('passes on what the cache has no room for', async () => {
    const { mirror, cache, source } = await mirrored({ limits: { maxSize: 300_000 } });
    const big = layerOf(tarOf({ data: randomBytes(600_000) }));
    const fat = imageOf([big]);
    await pushImage(source, 'team/app', 'fat', fat);
    expect((await mirror.fetchManifest('team/app', 'fat')).descriptor.digest).to.equal(fat.descriptor.digest);
    for (const range of [undefined, { first: 10, last: 99_999 }]) {
      const { body } = await mirror.fetchBlob('team/app', big.descriptor.digest, range ? { range } : {});
      const wanted = range === undefined ? big.bytes : big.bytes.subarray(10, 100_000);
      expect((await bytesOf(body)).equals(wanted)).to.equal(true);
    }
    expect(await cache.blobs.has(big.descriptor.digest)).to.equal(false);
    await pull(mirror);
  });

  it('fetches again what was damaged on its disk', async () => {
    const { mirror, cache, upstream } = await mirrored();
    await pull(mirror);
    for (const { digest } of [image.descriptor, layers[0]!.descriptor]) {
      writeFileSync(join(cache.dir, 'blobs', 'sha256', digestHex(digest)), 'x');
    }
    await pull(mirror);
    expect(upstream).to.have.length(7);
    // What is damaged in its middle is known to be when it is read, and that is too late for who reads it.
    const [{ descriptor, bytes }] = layers as [(typeof layers)[0]];
    const wrong = Buffer.from(bytes);
    wrong[20]! ^= 1;
    writeFileSync(join(cache.dir, 'blobs', 'sha256', digestHex(descriptor.digest)), wrong);
    await failure('NETWORK', () => pull(mirror));
    await pull(mirror);
  });

  it('keeps an image whose config claims nonsense, and pairs nothing of it', async () => {
    const { mirror, cache, source } = await mirrored();
    const odd = imageOf([layers[0]!], { diffIDs: [] });
    await pushImage(source, 'team/app', 'odd', odd);
    await mirror.fetchManifest('team/app', 'odd');
    expect(cache.layer(layers[0]!.descriptor.digest).diffID).to.equal(undefined);
    const { body } = await mirror.fetchBlob('team/app', layers[0]!.descriptor.digest);
    expect((await bytesOf(body)).equals(layers[0]!.bytes)).to.equal(true);
  });

  it('passes on manifests of a kind that the cache does not read', async () => {
    const bytes = Buffer.from('{"schemaVersion":1}');
    const mediaType = 'application/vnd.docker.distribution.manifest.v1+json';
    const { mirror, cache } = await mirrored({
      front: (request, response) => {
        if (request.url?.includes('/manifests/') !== true) return false;
        response.writeHead(200, { 'content-type': mediaType, 'docker-content-digest': digestOf(bytes) });
        response.end(request.method === 'HEAD' ? undefined : bytes);
        return true;
      },
    });
    const { descriptor } = await mirror.fetchManifest('team/app', 'old');
    expect(descriptor).to.deep.equal({ mediaType, digest: digestOf(bytes), size: bytes.length });
    expect(cache.has(digestOf(bytes))).to.equal(false);
  });

  it('passes on that lists are refused', async () => {
    const { mirror } = await mirrored({
      front: (_, response) => {
        response.writeHead(403).end();
        return true;
      },
    });
    const error = await failure('UNAUTHORIZED', async () => {
      for await (const tag of mirror.tags('team/app')) expect.fail(tag);
    });
    expect(error).to.have.property('status', 403);
  });

  it('takes nothing', async () => {
    const { mirror } = await mirrored();
    const error = await failure('REGISTRY', () =>
      mirror.pushManifest('team/app', MediaType.manifest, image.bytes, { tag: '2' }),
    );
    expect(error).to.have.property('status', 405);
  });

  it('fetches of an index what is asked for, and the cache can be pushed all the same', async () => {
    const source = new MemoryRegistry();
    const [amd, arm] = ['amd64', 'arm64'].map((architecture) =>
      imageOf([layerOf(tarOf({ architecture }))], { platform: { os: 'linux', architecture } }),
    ) as [typeof image, typeof image];
    const index = await pushIndex(source, 'team/app', 'multi', [amd, arm]);
    const { url, lines } = await serve(source);
    const { host } = new URL(url);
    const remote = new MemoryRegistry();
    const cache = await scratch.cache({ registry: (name) => (name === host ? client(url) : remote) });
    const mirror = client((await serve(cache.mirror(host))).url);
    const user = await scratch.cache({ registry: () => mirror });
    const added = await user.add('mirror.test/team/app:multi', {
      platform: { os: 'linux', architecture: 'arm64' },
    });
    expect(added.descriptor.digest).to.equal(arm.descriptor.digest);
    expect(cache.image(`${host}/team/app:multi`).digest).to.equal(index.digest);
    expect(cache.has(amd.descriptor.digest)).to.equal(false);
    expect(lines.filter((line) => line.startsWith('GET'))).to.have.length(4);
    await cache.push('remote.test/cache:main');
    const other = await scratch.cache({ registry: () => remote });
    await other.pull('remote.test/cache:main');
    expect(await bytesOf(other.layer(arm.layers[0]!.diffID).uncompressed())).to.deep.equal(
      arm.layers[0]!.tar,
    );
    expect((await cache.verify()).problems).to.deep.equal([]);
  });

  it('knows the short names of Docker Hub', async () => {
    const source = new MemoryRegistry();
    await pushImage(source, 'library/app', '1', image);
    const asked: string[] = [];
    const cache = await scratch.cache({
      registry: (host) => {
        asked.push(host);
        return source;
      },
    });
    const mirror = client((await serve(cache.mirror('https://index.docker.io/'))).url);
    await pull(mirror, 'app');
    await pull(mirror, 'library/app');
    expect([...cache.images()].map(({ name }) => name)).to.deep.equal(['docker.io/library/app:1']);
    expect(new Set(asked)).to.deep.equal(new Set(['docker.io']));
  });

  it('is of a registry, and of nothing else', async () => {
    const cache = await scratch.cache();
    for (const text of ['', 'alpine', 'docker.io/library', 'registry.example:5000/team', 'a b.c', '../x']) {
      await failure('USAGE', () => cache.mirror(text));
    }
  });
});
