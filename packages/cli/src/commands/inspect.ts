import { isClaimedName, isLayercacheError, isManifestMediaType, type Descriptor } from '@layercache/oci';
import type { LayerCache } from '@layercache/cache';
import { layerFacts } from '../layer-facts.js';
import { warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';
import { whereabouts } from './ls.js';

export const inspect: CommandModule = {
  register: (program) =>
    program
      .command('inspect')
      .description('print all that the cache knows of an image, a layer or a blob, as JSON')
      .argument('<what>', 'the name of an image, a digest or a diffID')
      .addHelpText('after', example('layercache inspect docker.io/library/alpine:3.20')),

  async run(session, command) {
    const [what = ''] = command.args;
    await session.withCache(
      async (cache) => {
        warnOfClaimedName(cache, what, session.output);
        session.output.document(await facts(cache, what, session.signal));
      },
      { create: false },
    );
  },
};

async function facts(cache: LayerCache, what: string, signal: AbortSignal): Promise<unknown> {
  if (!/^sha(256|512):/.test(what)) return imageFacts(cache, cache.image(what), signal);
  try {
    return {
      kind: 'layer',
      ...(await whereabouts(cache, layerFacts(cache.layer(what)))),
      entries: entriesOf(cache, what),
    };
  } catch (error) {
    if (!isLayercacheError(error, 'NOT_FOUND')) throw error;
  }
  const [entry] = entriesOf(cache, what);
  if (entry === undefined || isManifestMediaType(entry.mediaType)) {
    return imageFacts(cache, cache.image(what), signal);
  }
  return { kind: 'blob', ...entry, state: await cache.blobState(entry) };
}

async function imageFacts(cache: LayerCache, descriptor: Descriptor, signal: AbortSignal): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of await cache.blob(descriptor.digest, { signal })) chunks.push(chunk as Uint8Array);
  const claimed = isClaimedName(descriptor);
  return {
    kind: 'image',
    ...descriptor,
    claimed,
    manifest: JSON.parse(Buffer.concat(chunks).toString()) as unknown,
  };
}

function entriesOf(cache: LayerCache, key: string): Descriptor[] {
  return cache.lookup(key).map((entry) => entry.descriptor);
}
