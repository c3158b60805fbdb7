import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { LayerCache, type Layer } from '@layercache/cache';
import { Digester, LayercacheError, shortDigest, type Digest, type Logger } from '@layercache/oci';
import { MemoryRegistry, RegistryClient, createRegistryServer } from '@layercache/registry';
import { formatBytes, formatDuration, plural, type Output } from '../output.js';
import { packagesFolder, pushImageOfFolders } from './make-image.js';

const REPOSITORY = 'demo/app';

/** What the demo measured, for `--json`. Bytes and milliseconds. */
export interface DemoReport {
  readonly image: {
    readonly name: string;
    readonly layers: number;
    readonly compressed: number;
    readonly uncompressed: number;
  };
  readonly add: { readonly milliseconds: number; readonly networkBytes: number };
  readonly addAgain: {
    readonly milliseconds: number;

    readonly networkBytes: number;
  };
  readonly push: { readonly milliseconds: number; readonly sentBytes: number };
  readonly pull: { readonly milliseconds: number; readonly networkBytes: number };
  readonly served: { readonly diffID: Digest; readonly bytes: number };
  readonly caches: readonly [string, string];
}

interface Timed<T> {
  readonly value: T;
  readonly milliseconds: number;
  /** Bytes that came over the network while it ran. */
  readonly networkBytes: number;
}

/** The main job on real input: one registry, two caches, every layer under both of its names. */
export async function runDemo(
  dir: string,
  output: Output,
  context: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<DemoReport> {
  const { signal, logger } = context;
  const [firstDir, secondDir] = [join(dir, 'first'), join(dir, 'second')];
  await rm(firstDir, { recursive: true, force: true });
  await rm(secondDir, { recursive: true, force: true });
  const server = createRegistryServer(new MemoryRegistry(), { logger });
  await server.listen({ host: '127.0.0.1', port: 0 });
  const host = new URL(server.url).host;
  const client = new RegistryClient(host, { logger });
  const timed = async <T>(work: () => Promise<T>): Promise<Timed<T>> => {
    const [start, before] = [performance.now(), client.traffic.bytesReceived];
    const value = await work();
    return {
      value,
      milliseconds: performance.now() - start,
      networkBytes: client.traffic.bytesReceived - before,
    };
  };
  const open = (where: string): Promise<LayerCache> =>
    LayerCache.open(where, { logger, registry: () => client });

  try {
    const source = `${host}/${REPOSITORY}:1`;
    // The registry of the demo ends with it: a name with its port in it would mean nothing afterwards.
    const name = 'registry.example/demo/app:1';
    const made = await pushImageOfFolders(packagesFolder(), client, REPOSITORY, '1', signal);
    const compressed = made.layers.reduce((sum, layer) => sum + layer.descriptor.size, 0);
    const uncompressed = made.layers.reduce((sum, layer) => sum + layer.tarSize, 0);
    output.line(`A registry runs at ${host}. It has ${source}, made of the packages installed here:`);
    output.line(
      `  ${plural(made.files, 'file')} in ${plural(made.layers.length, 'layer')}, ${formatBytes(compressed)} compressed, ${formatBytes(uncompressed)} uncompressed`,
    );

    const first = await open(firstDir);
    try {
      const add = await timed(() => first.add(source, { name, signal }));
      output.line('');
      output.line(
        `1. add it to a cache              ${formatBytes(add.networkBytes)} from the network, ${formatDuration(add.milliseconds)}`,
      );

      output.line('');
      output.line('2. find each layer by both of its names');
      for (const { descriptor, diffID, tarSize } of made.layers) {
        const byDigest = await timed(() => read(first.layer(descriptor.digest), 'compressed', signal));
        const byDiffID = await timed(() => read(first.layer(diffID), 'uncompressed', signal));
        const again = await timed(() => read(first.layer(diffID), 'uncompressed', signal));
        output.line(
          `   digest ${shortDigest(descriptor.digest)}  ${formatBytes(byDigest.value).padStart(8)} in ${formatDuration(byDigest.milliseconds)}`,
        );
        output.line(
          `   diffID ${shortDigest(diffID)}  ${formatBytes(byDiffID.value).padStart(8)} in ${formatDuration(byDiffID.milliseconds)} (decompressed and proven), then ${formatDuration(again.milliseconds)} from disk`,
        );
        expect(
          byDigest.value === descriptor.size && byDiffID.value === tarSize,
          'a layer has another size than it was made with',
        );
        expect(first.layer(diffID).proven, 'a layer was handed out unproven');
      }

      const again = await timed(() => first.add(source, { name, signal }));
      output.line('');
      output.line(
        `3. add it again                   ${formatBytes(again.networkBytes)} from the network: one HEAD says that nothing changed`,
      );
      expect(again.networkBytes === 0, 'adding again fetched something');

      const target = `${host}/team/cache:main`;
      const push = await timed(() => first.push(target, { signal }));
      output.line('');
      output.line(
        `4. push the whole cache           to ${target}: ${formatBytes(push.value.sent.bytes)} sent, ${push.value.mounted} blobs mounted, ${formatDuration(push.milliseconds)}`,
      );

      const second = await open(secondDir);
      try {
        const pull = await timed(() => second.pull(target, { signal }));
        output.line('');
        output.line(
          `5. pull it on the next machine    ${formatBytes(pull.networkBytes)} from the network, ${formatDuration(pull.milliseconds)}`,
        );

        const served = await serveByDiffID(second, made.layers[0]?.diffID, signal, logger);
        output.line('');
        output.line(`6. serve a layer from there       GET ${served.path}`);
        output.line(
          `                                  ${formatBytes(served.bytes)}, a name that no registry answers to`,
        );
        leaveBehind(output, dir, name);
        return {
          image: { name, layers: made.layers.length, compressed, uncompressed },
          add: { milliseconds: add.milliseconds, networkBytes: add.networkBytes },
          addAgain: {
            milliseconds: again.milliseconds,
            networkBytes: again.networkBytes,
          },
          push: { milliseconds: push.milliseconds, sentBytes: push.value.sent.bytes },
          pull: { milliseconds: pull.milliseconds, networkBytes: pull.networkBytes },
          served: { diffID: served.diffID, bytes: served.bytes },
          caches: [firstDir, secondDir],
        };
      } finally {
        await second.close();
      }
    } finally {
      await first.close();
    }
  } finally {
    await server.close();
  }
}

async function read(layer: Layer, form: 'compressed' | 'uncompressed', signal: AbortSignal): Promise<number> {
  const stream =
    form === 'compressed' ? await layer.compressed({ signal }) : await layer.uncompressed({ signal });
  return (await hashed(stream)).size;
}

async function hashed(stream: Readable): Promise<{ digest: Digest; size: number }> {
  const digester = new Digester();
  for await (const bytes of stream) digester.update(bytes as Uint8Array);
  return { digest: digester.digest(), size: digester.size };
}

async function serveByDiffID(
  cache: LayerCache,
  diffID: Digest | undefined,
  signal: AbortSignal,
  logger: Logger,
): Promise<{ path: string; diffID: Digest; bytes: number }> {
  expect(diffID !== undefined, 'the image has no layer');
  const server = createRegistryServer(cache.registry(), { logger });
  await server.listen({ host: '127.0.0.1', port: 0 });
  try {
    const client = new RegistryClient(new URL(server.url).host, { logger });
    const { body } = await client.fetchBlob(REPOSITORY, diffID, { signal });
    const { digest, size } = await hashed(body);
    expect(digest === diffID, `the bytes served for ${diffID} hash to ${digest}`);
    return { path: `/v2/${REPOSITORY}/blobs/${diffID}`, diffID, bytes: size };
  } finally {
    await server.close();
  }
}

function leaveBehind(output: Output, dir: string, name: string): void {
  const first = join(dir, 'first');
  output.line('');
  output.line(`The caches stay in ${dir}. They are OCI image layouts, so look at them with what you have:`);
  output.line(`  skopeo inspect oci:${first}:${name}`);
  output.line(`  oras manifest fetch --oci-layout --pretty ${first}:layercache`);
  output.line(`  regctl manifest get ocidir://${first}:layercache`);
  output.line(
    `  layercache --cache ${first} export ${name} --to docker-archive:app.tar && crane validate --tarball app.tar`,
  );
  output.line(`  layercache --cache ${first} ls`);
}

/** A demo that does not show what it says has failed. */
function expect(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new LayercacheError('DIGEST_MISMATCH', `the demo failed: ${otherwise}`);
}
