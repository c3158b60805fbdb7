import { expect } from 'chai';
import { MediaType } from '@layercache/oci';
import { MemoryRegistry, createRegistryServer, type Registry } from '@layercache/registry';
import { Bench } from './program.js';

async function pushNothing(registry: Registry): Promise<void> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests: [] }));
  await registry.pushManifest('demo/app', MediaType.index, bytes, { tag: '1' });
}

describe('the tag command', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  beforeEach(async () => {
    bench = await Bench.open();
  });
  afterEach(() => bench.close());

  it('resolves from what an earlier run was told, until that is forgotten', async () => {
    const image = await bench.pushImage();
    const name = `${bench.host}/demo/app:1`;
    const unknown = await bench.run('tag', 'resolve', name, '--offline');
    expect([unknown.code, unknown.stdout.length]).to.deep.equal([3, 0]);
    const first = await bench.run('tag', 'resolve', name);
    expect(first.stdout.toString(), first.stderr).to.equal(`${image.digest}\n`);
    const second = JSON.parse(
      (await bench.run('--json', 'tag', 'resolve', name)).stdout.toString(),
    ) as Record<string, unknown>;
    expect([second.digest, second.source, second.reference]).to.deep.equal([image.digest, 'cache', name]);
    expect((await bench.run('tag', 'resolve', name, '--offline', '--max-age', '0')).stderr).to.match(
      /^layercache: .* too long ago, and no registry may be asked/,
    );
    expect((await bench.run('tag', 'invalidate', name)).code).to.equal(0);
    const forgotten = await bench.run('--json', 'tag', 'resolve', name, '--offline');
    expect(forgotten.code).to.equal(3);
    expect(JSON.parse(forgotten.stderr)).to.have.nested.property('error.code', 'INVALIDATED');
  });

  it('shows where a tag has been, the latest first', async () => {
    const before = await bench.pushImage();
    const name = `${bench.host}/demo/app:1`;
    expect((await bench.run('tag', 'history', name)).code).to.equal(3);
    await bench.run('add', name);
    const after = await bench.pushImage(20_000);
    const moved = await bench.run('tag', 'resolve', name, '--max-age', '0');
    expect(moved.stderr).to.equal(`moved from ${before.digest}\n`);
    const lines = (await bench.run('tag', 'history', name)).stdout.toString().trim().split('\n');
    expect(lines.map((line) => line.split(/ {2,}/).at(-1))).to.deep.equal([
      'DIGEST',
      after.digest,
      before.digest,
    ]);
    const json = (await bench.run('--json', 'tag', 'history', name)).stdout.toString();
    expect((JSON.parse(json) as { digest: string }[]).map(({ digest }) => digest)).to.deep.equal([
      after.digest,
      before.digest,
    ]);
  });

  it('tells how many pulls the registry says are left', async () => {
    const registry = new MemoryRegistry();
    await pushNothing(registry);
    const server = createRegistryServer(registry, {
      wrap: (handler) => (request, response) => {
        response.setHeader('RateLimit-Limit', '100;w=21600');
        response.setHeader('RateLimit-Remaining', '76;w=21600');
        handler(request, response);
      },
    });
    await server.listen({ host: '127.0.0.1', port: 0 });
    try {
      const name = `${new URL(server.url).host}/demo/app:1`;
      expect((await bench.run('tag', 'resolve', name)).stderr).to.equal(
        '76 of 100 pulls left at the registry\n',
      );
      const json = (await bench.run('--json', 'tag', 'resolve', name, '--max-age', '0')).stdout.toString();
      expect((JSON.parse(json) as { rateLimit: unknown }).rateLimit).to.deep.equal({
        limit: 100,
        remaining: 76,
        window: 21600,
      });
    } finally {
      await server.close();
    }
  });

  it('takes only the actions it has, and an age in seconds', async () => {
    expect((await bench.run('tag', 'move', 'app:1')).code).to.equal(2);
    expect((await bench.run('tag', 'resolve', 'app:1', '--max-age', 'soon')).code).to.equal(2);
  });
});
