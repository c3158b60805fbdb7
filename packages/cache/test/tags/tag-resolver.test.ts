import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { LayercacheError, digestOf, silentLogger, type LogFields, type Logger } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import { MemoryRegistry, RegistryError, forward, type Registry } from '@layercache/registry';
import { TagResolver } from '../../src/tags/tag-resolver.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, failure, memoryRegistry, type counted } from '../test-cache.js';

const images = ['one', 'two', 'three'].map((data) => imageOf([layerOf(tarOf({ data }))])) as [
  BuiltImage,
  BuiltImage,
  BuiltImage,
];
const [one, two, three] = images;
const NAME = 'registry.test/app:1';

class Recorded implements Logger {
  readonly lines: [level: string, fields: LogFields][] = [];
  debug = (fields: LogFields): void => void this.lines.push(['debug', fields]);
  info = (fields: LogFields): void => void this.lines.push(['info', fields]);
  warn = (fields: LogFields): void => void this.lines.push(['warn', fields]);
  error = (fields: LogFields): void => void this.lines.push(['error', fields]);
}

describe('resolving tags', () => {
  const scratch = new Scratch();
  const open: { close(): unknown }[] = [];
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
    await scratch.clean();
  });

  /** A resolver over a registry, with a clock that the test sets. */
  async function resolverOf(
    registry: Registry,
    options: { dir?: string; ttl?: number; staleIfError?: boolean; logger?: Logger } = {},
  ): Promise<{ tags: TagResolver; clock: { now: number }; dir: string }> {
    const dir = options.dir ?? join(await scratch.dir(), 'cache');
    const layout = await OciLayout.open(dir);
    const clock = { now: 1_700_000_000_000 };
    const tags = new TagResolver({
      layout,
      registryOf: () => registry,
      ttl: options.ttl ?? 1000,
      staleIfError: options.staleIfError ?? false,
      logger: options.logger ?? silentLogger,
      metrics: { count: () => undefined },
      now: () => clock.now,
    });
    open.push(tags, layout);
    return { tags, clock, dir };
  }

  async function registryWith(image: BuiltImage): Promise<ReturnType<typeof counted>> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    return registry;
  }

  const asked = (registry: ReturnType<typeof counted>): number => registry.asked.get('resolve') ?? 0;

  /** A registry that can be switched off. */
  function fragile(registry: Registry, broken: () => Error | undefined): Registry {
    return {
      ...forward(registry),
      resolve: (...all) => {
        const error = broken();
        return error === undefined ? registry.resolve(...all) : Promise.reject(error);
      },
    };
  }

  it('asks the registry once, and again when the TTL is over', async () => {
    const registry = await registryWith(one);
    const { tags, clock } = await resolverOf(registry);
    const first = await tags.resolve(NAME);
    expect(first.source).to.equal('registry');
    expect(first.digest).to.equal(one.descriptor.digest);
    expect(first.descriptor.size).to.equal(one.bytes.length);
    expect(first.expiresAt?.getTime()).to.equal(clock.now + 1000);
    clock.now += 999;
    const second = await tags.resolve(NAME);
    expect(second).to.deep.equal({ ...first, source: 'cache' });
    expect(asked(registry)).to.equal(1);
    clock.now += 1;
    expect((await tags.resolve(NAME)).source).to.equal('registry');
    expect(asked(registry)).to.equal(2);
    clock.now += 500;
    expect((await tags.resolve(NAME, { maxAge: 400 })).source).to.equal('registry');
    expect((await tags.resolve(NAME, { maxAge: 0 })).source).to.equal('registry');
    expect((await tags.resolve(NAME, { maxAge: 10_000 })).source).to.equal('cache');
    expect(asked(registry)).to.equal(4);
  });

  it('shares one request among those who ask at the same time, and with the next process', async () => {
    const registry = await registryWith(one);
    const { tags, dir } = await resolverOf(registry);
    const found = await Promise.all(
      ['registry.test/app:1', NAME, `docker://${NAME}`].map((name) => tags.resolve(name)),
    );
    expect(new Set(found.map(({ digest }) => digest)).size).to.equal(1);
    expect(asked(registry)).to.equal(1);
    const other = await resolverOf(registry, { dir });
    expect((await other.tags.resolve(NAME)).source).to.equal('cache');
    expect(asked(registry)).to.equal(1);
  });

  it('sees that a tag moved, says so, and remembers where it was', async () => {
    const registry = await registryWith(one);
    const logger = new Recorded();
    const { tags, clock } = await resolverOf(registry, { logger });
    const start = clock.now;
    await tags.resolve(NAME);
    clock.now += 1000;
    await tags.resolve(NAME);
    await pushImage(registry, 'app', '1', two);
    clock.now += 1000;
    const moved = { from: one.descriptor.digest, to: two.descriptor.digest };
    expect((await tags.resolve(NAME)).moved).to.deep.equal(moved);
    expect(logger.lines).to.deep.equal([['info', { message: 'tag moved', reference: NAME, ...moved }]]);
    expect((await tags.resolve(NAME)).moved).to.equal(undefined);
    expect(
      tags.history(NAME).map((each) => [each.digest, each.firstSeen.getTime(), each.lastSeen.getTime()]),
    ).to.deep.equal([
      [two.descriptor.digest, start + 2000, start + 2000],
      [one.descriptor.digest, start, start + 1000],
    ]);
    expect(tags.history('registry.test/other:1')).to.deep.equal([]);
  });

  it('remembers the twenty latest digests of a tag', async () => {
    const registry = new MemoryRegistry();
    const { tags, clock } = await resolverOf(registry);
    for (let count = 0; count < 25; count++) {
      await pushImage(registry, 'app', '1', images[count % 3]!);
      clock.now += 1;
      await tags.resolve(NAME, { maxAge: 0 });
    }
    const history = tags.history(NAME);
    expect(history.map(({ digest }) => digest)).to.deep.equal(
      Array.from({ length: 20 }, (_, age) => images[(24 - age) % 3]!.descriptor.digest),
    );
  });

  it('asks again after an invalidation, and not twice', async () => {
    const registry = await registryWith(one);
    const { tags, dir } = await resolverOf(registry);
    expect(await tags.invalidate(NAME)).to.equal(false);
    await tags.resolve(NAME);
    expect(await tags.invalidate(NAME)).to.equal(true);
    await failure('INVALIDATED', () => tags.resolve(NAME, { offline: true }));
    const other = await resolverOf(registry, { dir });
    expect((await other.tags.resolve(NAME)).source).to.equal('registry');
    expect((await tags.resolve(NAME)).source).to.equal('cache');
    expect(asked(registry)).to.equal(2);
    expect(tags.history(NAME)).to.have.length(1);
  });

  it('does not take the answer to a question from before an invalidation', async () => {
    const inner = await registryWith(one);
    let release: (() => void) | undefined;
    const slow = new Promise<void>((resolve) => (release = resolve));
    const waits = [Promise.resolve(), slow];
    const registry: Registry = {
      ...forward(inner),
      resolve: async (...all) => {
        const answer = await inner.resolve(...all);
        await waits.shift();
        return answer;
      },
    };
    const { tags, clock } = await resolverOf(registry);
    await tags.resolve(NAME);
    clock.now += 2000;
    const early = tags.resolve(NAME);
    clock.now += 1;
    await tags.invalidate(NAME);
    await pushImage(inner, 'app', '1', two);
    expect((await tags.resolve(NAME)).digest).to.equal(two.descriptor.digest);
    release?.();
    expect((await early).digest).to.equal(one.descriptor.digest);
    expect((await tags.resolve(NAME)).digest).to.equal(two.descriptor.digest);
  });

  it('offline knows what is fresh, and says what is not: EXPIRED, or NOT_FOUND', async () => {
    const registry = await registryWith(one);
    const { tags, clock } = await resolverOf(registry);
    await failure('NOT_FOUND', () => tags.resolve(NAME, { offline: true }));
    await tags.resolve(NAME);
    expect((await tags.resolve(NAME, { offline: true })).source).to.equal('cache');
    clock.now += 1000;
    await failure('EXPIRED', () => tags.resolve(NAME, { offline: true }));
    expect(asked(registry)).to.equal(1);
  });

  it('serves what it knew, with a warning, when the registry is down and that was asked for', async () => {
    const registry = await registryWith(one);
    let broken: Error | undefined;
    const logger = new Recorded();
    const { tags, clock } = await resolverOf(
      fragile(registry, () => broken),
      { logger },
    );
    await tags.resolve(NAME);
    const resolvedAt = clock.now;
    clock.now += 5000;
    for (const error of [
      new LayercacheError('NETWORK', 'no route'),
      new RegistryError('REGISTRY', 'broken', { status: 503 }),
      new RegistryError('REGISTRY', 'too many', { status: 429 }),
    ]) {
      broken = error;
      await failure(error.code, () => tags.resolve(NAME));
      const stale = await tags.resolve(NAME, { staleIfError: true });
      expect([stale.source, stale.digest]).to.deep.equal(['stale', one.descriptor.digest]);
      expect(stale.resolvedAt.getTime()).to.equal(resolvedAt);
      const [level, fields] = logger.lines.pop() ?? [];
      expect([level, fields?.reference, fields?.error]).to.deep.equal(['warn', NAME, error.message]);
    }
    for (const error of [
      new RegistryError('NOT_FOUND', 'gone', { status: 404 }),
      new RegistryError('UNAUTHORIZED', 'no', { status: 401 }),
    ]) {
      broken = error;
      await failure(error.code, () => tags.resolve(NAME, { staleIfError: true }));
    }
    broken = new LayercacheError('NETWORK', 'no route');
    await tags.invalidate(NAME);
    await failure('NETWORK', () => tags.resolve(NAME, { staleIfError: true }));
    await failure('NETWORK', () => tags.resolve('registry.test/other:1', { staleIfError: true }));
  });

  it('resolves many with no more requests at a time than allowed, and one that fails keeps none of them', async () => {
    const inner = await registryWith(one);
    await pushImage(inner, 'app', '2', two);
    await pushImage(inner, 'app', '3', three);
    let [under, most] = [0, 0];
    const registry: Registry = {
      ...forward(inner),
      resolve: async (...all) => {
        under += 1;
        most = Math.max(most, under);
        await new Promise((resolve) => setImmediate(resolve));
        try {
          return await inner.resolve(...all);
        } finally {
          under -= 1;
        }
      },
    };
    const { tags } = await resolverOf(registry);
    const references = ['app:1', 'app:none', 'app:2', 'UPPER', 'app:3'].map(
      (name) => `registry.test/${name}`,
    );
    const found = await tags.resolveAll(references, { concurrency: 2 });
    expect(found.map((each) => ('error' in each ? each.error.code : each.resolved.digest))).to.deep.equal([
      one.descriptor.digest,
      'NOT_FOUND',
      two.descriptor.digest,
      'REFERENCE_INVALID',
      three.descriptor.digest,
    ]);
    expect(found.map(({ reference }) => reference)).to.deep.equal(references);
    expect(most).to.equal(2);
    const abort = new AbortController();
    abort.abort();
    await failure('ABORTED', () => tags.resolveAll(references, { signal: abort.signal }));
  });

  it('never asks twice for a digest, which cannot move', async () => {
    const registry = await registryWith(one);
    const cache = await scratch.cache({ registry: () => registry });
    const pinned = `registry.test/app@${one.descriptor.digest}`;
    await failure('NOT_FOUND', () => cache.tags.resolve(pinned, { offline: true }));
    expect((await cache.tags.resolve(pinned)).source).to.equal('registry');
    await cache.add(pinned);
    const before = asked(registry);
    const found = await cache.tags.resolve(pinned, { offline: true, maxAge: 0 });
    expect([found.source, found.digest, found.expiresAt]).to.deep.equal([
      'cache',
      one.descriptor.digest,
      undefined,
    ]);
    expect(asked(registry)).to.equal(before);
    expect(cache.tags.history(pinned)).to.deep.equal([]);
  });

  it('adding an image says what its tag means, and always asks', async () => {
    const registry = await registryWith(one);
    const logger = new Recorded();
    const cache = await scratch.cache({ registry: () => registry, logger });
    await cache.add(NAME);
    expect((await cache.tags.resolve(NAME)).source).to.equal('cache');
    expect(asked(registry)).to.equal(1);
    await pushImage(registry, 'app', '1', two);
    expect((await cache.add(NAME)).descriptor.digest).to.equal(two.descriptor.digest);
    expect(cache.tags.history(NAME).map(({ digest }) => digest)).to.deep.equal([
      two.descriptor.digest,
      one.descriptor.digest,
    ]);
    expect(logger.lines.map(([, { message }]) => message)).to.include('tag moved');
  });

  it('adds again what it has when the registry is down and stale tags will do', async () => {
    const registry = await registryWith(one);
    const down: { broken?: Error } = {};
    const cache = await scratch.cache({
      registry: () => fragile(registry, () => down.broken),
      staleIfError: true,
    });
    await cache.add(NAME);
    down.broken = new LayercacheError('NETWORK', 'no route');
    expect((await cache.add(NAME)).fetched).to.equal(0);
    // Without side state it is not known when that was, but what the name meant is.
    rmSync(join(cache.dir, '.layercache', 'tags'), { recursive: true });
    await failure('EXPIRED', () => cache.tags.resolve(NAME, { offline: true }));
    await failure('NETWORK', () => cache.tags.resolve(NAME, { staleIfError: false }));
    const stale = await cache.tags.resolve(NAME);
    expect([stale.source, stale.digest, stale.resolvedAt.getTime()]).to.deep.equal([
      'stale',
      one.descriptor.digest,
      0,
    ]);
  });

  it('does without a record where none can be written', async () => {
    const registry = await registryWith(one);
    const { tags, dir } = await resolverOf(registry);
    writeFileSync(join(dir, '.layercache', 'tags'), 'no folder');
    for (let count = 0; count < 2; count++) {
      const { source, digest } = await tags.resolve(NAME);
      expect([source, digest]).to.deep.equal(['registry', one.descriptor.digest]);
    }
    expect(tags.history(NAME)).to.deep.equal([]);
  });

  it('starts anew when what it kept is gone, is not its own, or comes from the future', async () => {
    const registry = await registryWith(one);
    const { tags, clock, dir } = await resolverOf(registry);
    const folder = join(dir, '.layercache', 'tags');
    await tags.resolve(NAME);
    const [file] = readdirSync(folder).filter((name) => name !== '.lock') as [string];
    const hostile: unknown[] = [
      '',
      '{"version":1',
      'null',
      { version: 2, name: NAME, sightings: [] },
      { version: 1, name: 'registry.test/other:1', sightings: sightings('sha256:00') },
      { version: 1, name: 'registry.test/other:1', sightings: sightings(digestOf('x')) },
      { version: 1, name: NAME, sightings: sightings('sha256:../../etc') },
      { version: 1, name: NAME, sightings: sightings(digestOf('x'), 1e300) },
      { version: 1, name: NAME, sightings: sightings(digestOf('x'), clock.now + 3_600_000) },
      { version: 1, name: NAME, sightings: Array(1000).fill(sightings(digestOf('x'))[0]) },
      'x'.repeat(100_000),
    ];
    function sightings(digest: string, time = clock.now): object[] {
      const descriptor = { mediaType: one.descriptor.mediaType, digest, size: 1 };
      return [{ descriptor, firstSeen: time, lastSeen: time }];
    }
    for (const content of hostile) {
      writeFileSync(join(folder, file), typeof content === 'string' ? content : JSON.stringify(content));
      const found = await tags.resolve(NAME);
      expect([found.source, found.digest]).to.deep.equal(['registry', one.descriptor.digest]);
    }
    rmSync(join(dir, '.layercache'), { recursive: true });
    expect((await tags.resolve(NAME)).source).to.equal('registry');
    expect((await tags.resolve(NAME)).source).to.equal('cache');
  });
});
