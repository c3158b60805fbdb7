import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  RegistryClient,
  createRegistryServer,
  noCredentials,
  type RegistryServer,
} from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf } from '../test-cache.js';
import { REAL_REGISTRIES, itWith, runTool, startRegistry, type RunningRegistry } from './tools.js';

describe('other tools through a mirror of another registry', () => {
  const scratch = new Scratch();
  let upstream: RunningRegistry | undefined;
  let server: RegistryServer | undefined;
  afterEach(async () => {
    await scratch.clean();
    await server?.close();
    await upstream?.stop();
    server = upstream = undefined;
  });

  const layers = [60_000, 40_000].map((size) => layerOf(tarOf({ data: randomBytes(size) })));
  const image = imageOf(layers);

  /** What `pull` makes of an image that only the mirror's upstream has. Afterwards the mirror does without it. */
  async function expectPulled(
    program: string,
    pull: (host: string, dir: string) => Promise<void>,
  ): Promise<void> {
    upstream = await startRegistry(program);
    const { host } = upstream;
    await pushImage(new RegistryClient(host, { credentials: noCredentials }), 'team/app', '1', image);
    const cache = await scratch.cache();
    server = createRegistryServer(cache.mirror(host));
    await server.listen({ host: '127.0.0.1', port: 0 });
    const mirror = new URL(server.url).host;
    for (const run of ['first', 'second']) {
      const dir = join(await scratch.dir(), run);
      await pull(mirror, dir);
      const found = await scratch.cache();
      await found.add(`oci:${dir}`);
      for (const layer of layers) {
        expect(await bytesOf(found.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
      }
      await upstream?.stop();
      upstream = undefined;
    }
    expect([...cache.images()].map(({ name }) => name)).to.deep.equal([`${host}/team/app:1`]);
  }

  for (const { name, program } of REAL_REGISTRIES) {
    itWith(['skopeo', program], `skopeo, with ${name} behind it`, () =>
      expectPulled(program, async (host, dir) => {
        await runTool('skopeo', [
          'copy',
          '--src-tls-verify=false',
          `docker://${host}/team/app:1`,
          `oci:${dir}:app`,
        ]);
      }),
    );

    itWith(['regctl', program], `regctl, with ${name} behind it`, () =>
      expectPulled(program, async (host, dir) => {
        const copy = ['image', 'copy', `${host}/team/app:1`, `ocidir://${dir}:app`];
        await runTool('regctl', ['--host', `reg=${host},tls=disabled`, ...copy]);
      }),
    );

    itWith(['crane', program], `crane, with ${name} behind it`, () =>
      expectPulled(program, async (host, dir) => {
        await runTool('crane', ['pull', '--insecure', '--format', 'oci', `${host}/team/app:1`, dir]);
      }),
    );
  }
});
