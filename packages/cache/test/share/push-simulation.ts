import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { OciLayout } from '@layercache/layout';
import { LayercacheError, silentLogger, type Digest } from '@layercache/oci';
import { MemoryRegistry, type Registry } from '@layercache/registry';
import { CachePusher, type PushContext } from '../../src/share/push.js';
import { RemoteBlobs } from '../../src/share/remote-blobs.js';
import { RemoteCacheReader, type CacheLocation } from '../../src/share/remote-cache.js';
import { RemoteMemory } from '../../src/share/remote-memory.js';
import { layerOf, tarOf } from '../image-builder.js';
import { connection, withoutTags, type Refusals } from './simulated-registry.js';
import { SimulatedTime, randomFrom, type SimulatedProcess } from './simulated-time.js';

/** A machine of a simulation: a cache with one layer that no other has. */
export interface Machine {
  readonly layout: OciLayout;
  readonly layer: Digest;
}

export async function openMachines(dir: string, count: number): Promise<Machine[]> {
  const machines: Machine[] = [];
  for (let n = 0; n < count; n++) {
    const layout = await OciLayout.open(join(dir, String(n)));
    const layer = layerOf(tarOf({ data: randomBytes(100) }));
    await layout.write(layer.bytes);
    await layout.put(layer.descriptor);
    machines.push({ layout, layer: layer.descriptor.digest });
  }
  return machines;
}

export interface SimulationOptions {
  readonly seed: number;
  /** Milliseconds that a way to the registry, or back, takes at most. */
  readonly maxDelay: number;
  readonly refuses?: Refusals;
  /** Part of the pushes that are killed in the middle. */
  readonly crashes?: number;
}

export interface SimulationResult {
  /** Pushes that reported success. */
  readonly acknowledged: number;
  readonly crashed: number;
  /** Acknowledged layers that somebody who looked later did not find. */
  readonly lost: readonly Digest[];
  /** Whether the tag itself has everything at the end, for tools that know no pending tags. */
  readonly isMainWhole: boolean;
  /** Tags of the repository at the end. */
  readonly tags: readonly string[];
  /** Milliseconds of simulated time. */
  readonly time: number;
}

/** Machines that push to one tag at about the same time, over connections that take their time. */
export async function simulatePushes(
  machines: readonly Machine[],
  { seed, maxDelay, refuses, crashes = 0 }: SimulationOptions,
): Promise<SimulationResult> {
  const registry = new MemoryRegistry();
  const time = new SimulatedTime();
  const repository = `simulated/${seed}`;
  const acknowledged = new Set<Digest>();
  const lost: Digest[] = [];
  let crashed = 0;
  const locationOf = (from: Registry): CacheLocation => ({
    registry: from,
    repository,
    tag: 'main',
    name: `registry.test/${repository}:main`,
    origin: { registry: 'registry.test', repository },
  });
  const connected = (process: SimulatedProcess, own: () => number): Registry =>
    connection(registry, process, { delay: () => own() * maxDelay, ...(refuses && { refuses }) });

  const missing = async (from: Registry, layout: OciLayout): Promise<Digest[]> => {
    const expected = [...acknowledged];
    const reader = new RemoteCacheReader(locationOf(from), new RemoteMemory(layout), silentLogger);
    const remote = await reader.read();
    const there = new Set(remote?.entries.map((entry) => entry.digest));
    return expected.filter((digest) => !there.has(digest));
  };

  const pushes = machines.map(({ layout, layer }, n) => async (process: SimulatedProcess): Promise<void> => {
    const own = randomFrom(seed * 1000 + n);
    const start = own() * maxDelay * 2;
    const dies = own() < crashes;
    const from = connected(process, own);
    const killer = new AbortController();
    if (dies) {
      time.after(start + own() * maxDelay * 12, () => {
        killer.abort(new LayercacheError('ABORTED', 'killed'));
      });
    }
    await process.wait(start);
    const context: PushContext = {
      layout,
      location: locationOf(from),
      blobs: new RemoteBlobs(layout, () => from),
      memory: new RemoteMemory(layout),
      concurrency: 4,
      logger: silentLogger,
      image: () => {
        throw new Error('no image is selected');
      },
      clock: process,
    };
    try {
      await new CachePusher(context, { signal: killer.signal }).push();
      acknowledged.add(layer);
      for (const digest of await missing(connected(process, own), layout)) lost.push(digest);
    } catch (error) {
      if (!killer.signal.aborted) throw error;
      crashed += 1;
    }
  });
  await time.run(pushes);
  const [first] = machines;
  if (first === undefined) throw new Error('nobody pushes');
  const tagOnly = withoutTags(registry);
  lost.push(...(await missing(refuses?.tags === true ? tagOnly : registry, first.layout)));
  const tags: string[] = [];
  for await (const tag of registry.tags(repository)) tags.push(tag);
  return {
    acknowledged: acknowledged.size,
    crashed,
    lost,
    isMainWhole: (await missing(tagOnly, first.layout)).length === 0,
    tags,
    time: time.now,
  };
}
