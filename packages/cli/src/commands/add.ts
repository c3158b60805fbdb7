import { parsePlatform } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { formatBytes, plural } from '../output.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly name?: string;
  readonly platform?: string[];
  readonly allPlatforms?: boolean;
}

export const add: CommandModule = {
  register: (program) =>
    program
      .command('add')
      .description('cache images with all their layers')
      .argument(
        '<source...>',
        'a registry reference, oci:DIR[:name], oci-archive:FILE or docker-archive:FILE',
      )
      .option('--name <ref>', 'keep the image under this name instead of its own')
      .option('--platform <os/arch...>', 'which image of an index (default: Linux on this processor)')
      .option('--all-platforms', 'every image of an index')
      .addHelpText(
        'after',
        example('layercache add alpine:3.20', 'layercache add oci:./build:app --name team/app:1'),
      ),

  async run(session, command) {
    const sources = command.args;
    const { name, platform, allPlatforms } = command.opts<Options>();
    if (name !== undefined && sources.length > 1) {
      throw new LayercacheError(
        'USAGE',
        `--name gives one image a name, but there are ${sources.length} sources`,
      );
    }
    if (platform !== undefined && allPlatforms === true) {
      throw new LayercacheError('USAGE', '--platform and --all-platforms exclude each other');
    }
    const platforms = platform?.flatMap((each) => each.split(',')).map(parsePlatform);
    const wanted = allPlatforms === true ? 'all' : platforms?.length === 1 ? platforms[0] : platforms;
    await session.withCache(async (cache) => {
      const results: unknown[] = [];
      for (const source of sources) {
        const progress = session.progress();
        try {
          const added = await cache.add(source, {
            name,
            platform: wanted,
            signal: session.signal,
            onProgress: ({ descriptor, received, state }) => {
              if (state === 'receiving') progress.update(descriptor, received);
              else progress.done(descriptor);
            },
          });
          results.push({
            name: added.name,
            digest: added.descriptor.digest,
            layers: added.layers.map((layer) => layer.digest),
            fetched: added.fetched,
            reused: added.reused,
            skipped: added.skipped.map((layer) => layer.digest),
          });
          progress.stop();
          if (!session.output.json) {
            const skipped =
              added.skipped.length === 0
                ? ''
                : `, ${plural(added.skipped.length, 'layer')} left at the source`;
            session.output.line(
              `${added.name ?? added.descriptor.digest}  ${plural(added.layers.length, 'layer')}, ${formatBytes(added.fetched)} fetched, ${formatBytes(added.reused)} already here${skipped}`,
            );
          }
        } finally {
          progress.stop();
        }
      }
      if (session.output.json) session.output.document(results);
    });
  },
};
