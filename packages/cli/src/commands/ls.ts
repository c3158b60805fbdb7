import type { BlobState, LayerCache } from '@layercache/cache';
import { LayercacheError, layerForm, shortDigest, type Descriptor } from '@layercache/oci';
import { layerFacts, type LayerFacts } from '../layer-facts.js';
import { formatBytes, formatTable } from '../output.js';
import type { Session } from '../session.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly images?: boolean;
  readonly layers?: boolean;
}

export const ls: CommandModule = {
  register: (program) =>
    program
      .command('ls')
      .description('list what is in the cache')
      .option('--images', 'only images')
      .option('--layers', 'only layers')
      .addHelpText('after', example('layercache ls --layers', 'layercache --json ls | jq -r .images[].name')),

  async run(session, command) {
    const { images, layers } = command.opts<Options>();
    if (images === true && layers === true) {
      throw new LayercacheError('USAGE', '--images and --layers exclude each other: leave both out for all');
    }
    await session.withCache(
      (cache) => list(session, cache, { images: layers !== true, layers: images !== true }),
      { create: false },
    );
  },
};

/** What the commands say of a layer, and where its bytes are. */
export interface LayerWhereabouts extends LayerFacts {
  /** `local` when one of its forms is. */
  readonly state: BlobState;
  readonly forms: readonly (LayerFacts['forms'][number] & { readonly state: BlobState })[];
}

export async function whereabouts(cache: LayerCache, facts: LayerFacts): Promise<LayerWhereabouts> {
  const forms = await Promise.all(
    facts.forms.map(async (form) => ({ ...form, state: await cache.blobState(form) })),
  );
  const states = new Set(forms.map((form) => form.state));
  const state = (['local', 'remote'] as const).find((each) => states.has(each)) ?? 'missing';
  return { ...facts, state, forms };
}

async function list(
  session: Session,
  cache: LayerCache,
  wanted: { images: boolean; layers: boolean },
): Promise<void> {
  const { output } = session;
  const images = wanted.images ? [...cache.images()] : [];
  const unnamed = wanted.images ? await cache.unnamedImages() : [];
  const layers = wanted.layers
    ? await Promise.all([...cache.layers()].map((layer) => whereabouts(cache, layerFacts(layer))))
    : [];
  if (output.json) {
    output.document({
      ...(wanted.images
        ? {
            images: [
              ...images.map(({ name, descriptor, claimed }) => ({
                name,
                ...imageFacts(descriptor),
                claimed,
              })),
              ...unnamed.map(imageFacts),
            ],
          }
        : {}),
      ...(wanted.layers ? { layers } : {}),
    });
    return;
  }
  if (wanted.images) {
    output.line(
      formatTable(
        ['IMAGE', 'DIGEST', 'NAME'],
        [
          ...images.map(({ name, descriptor, claimed }) => [
            name,
            descriptor.digest,
            claimed ? 'claimed' : '',
          ]),
          ...unnamed.map(({ digest }) => ['-', digest, '']),
        ],
      ),
    );
  }
  if (wanted.images && wanted.layers) output.line('');
  if (wanted.layers) {
    output.line(
      formatTable(
        ['DIFFID', 'PAIR', 'BYTES', 'TAR', 'COMPRESSED', 'DIGESTS'],
        layers.map((layer) => [
          layer.diffID === undefined ? '-' : shortDigest(layer.diffID),
          layer.digests.length === 0 ? '-' : layer.proven ? 'proven' : 'claimed',
          layer.state,
          layer.size.uncompressed === undefined ? '-' : formatBytes(layer.size.uncompressed),
          layer.size.compressed === undefined ||
          layer.forms.every((form) => layerForm(form.mediaType) === 'tar')
            ? '-'
            : formatBytes(layer.size.compressed),
          layer.digests.map(shortDigest).join(' ') || '-',
        ]),
      ),
    );
  }
}

function imageFacts({ mediaType, digest, size }: Descriptor): {
  mediaType: string;
  digest: string;
  size: number;
} {
  return { mediaType, digest, size };
}
