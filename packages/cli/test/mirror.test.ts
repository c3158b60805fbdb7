import { get } from 'node:http';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { RegistryClient, noCredentials } from '@layercache/registry';
import { Bench, finished, firstLine } from './program.js';

describe('serve --upstream', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  beforeEach(async () => {
    bench = await Bench.open();
  });
  afterEach(() => bench.close());

  it('hands out what the registry has, and keeps it for the time without one', async () => {
    const image = await bench.pushImage();
    const server = bench.start('serve', '--upstream', bench.host, '--listen', '127.0.0.1:0');
    const { host } = new URL(await firstLine(server));
    const client = new RegistryClient(host, { credentials: noCredentials });
    const { descriptor, bytes } = await client.fetchManifest('demo/app', '1');
    expect([descriptor.digest, digestOf(bytes)]).to.deep.equal([image.digest, image.digest]);
    for (const layer of image.layers) {
      const { body } = await client.fetchBlob('demo/app', layer.descriptor.digest);
      const chunks = await body.toArray();
      expect(digestOf(Buffer.concat(chunks as Buffer[]))).to.equal(layer.descriptor.digest);
    }
    const done = finished(server);
    server.kill('SIGINT');
    expect((await done).code).to.equal(0);
    const name = `${bench.host}/demo/app:1`;
    expect((await bench.run('tag', 'resolve', name, '--offline')).stdout.toString()).to.equal(
      `${image.digest}\n`,
    );
    const tar = await bench.run('get', image.layers[0]!.diffID);
    expect(digestOf(tar.stdout)).to.equal(image.layers[0]!.diffID);
    expect((await bench.run('ls', '--images')).stdout.toString()).to.include(name);
  });

  it('counts what it does, for Prometheus', async () => {
    await bench.pushImage();
    const args = ['--upstream', bench.host, '--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0'];
    const server = bench.start('--json', 'serve', ...args);
    let text = '';
    for await (const chunk of server.stdout.iterator({ destroyOnReturn: false })) {
      text += String(chunk);
      if (text.includes('}')) break;
    }
    const { url, metrics } = JSON.parse(text) as { url: string; metrics: string };
    const client = new RegistryClient(new URL(url).host, { credentials: noCredentials });
    const { bytes } = await client.fetchManifest('demo/app', '1');
    const lines = (await (await fetch(metrics)).text()).split('\n');
    expect(lines).to.include(`layercache_bytes_served_total ${bytes.length}`);
    expect(lines).to.include('layercache_tag_misses_total 1');
    expect((await fetch(new URL('/', metrics))).status).to.equal(404);
    const rebound = await new Promise<number | undefined>((resolve, reject) => {
      get(metrics, { headers: { Host: 'evil.example' } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).on('error', reject);
    });
    expect(rebound).to.equal(421);
    const done = finished(server);
    server.kill('SIGINT');
    expect((await done).code).to.equal(0);
  });

  it('wants a registry, and stale tags only of one', async () => {
    expect((await bench.run('serve', '--upstream', 'alpine')).code).to.equal(2);
    expect((await bench.run('serve', '--stale-if-error')).code).to.equal(2);
  });
});
