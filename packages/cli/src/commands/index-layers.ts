import { parsePlatform } from '@layercache/cache';
import { formatBytes, formatDuration, plural } from '../output.js';
import { warnOfClaimedFiles, warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly platform?: string;
}

export const index: CommandModule = {
  register: (program) =>
    program
      .command('index')
      .description('index the layers of an image, or one layer: their files, and where to start reading')
      .argument('<image|layer>', 'the name or digest of an image, or the digest or diffID of a layer')
      .option('--platform <os/arch>', 'which image of an index (default: Linux on this processor)')
      .addHelpText('after', example('layercache index alpine:3.20')),

  async run(session, command) {
    const [what = ''] = command.args;
    const { platform } = command.opts<Options>();
    const { output } = session;
    await session.withCache(
      async (cache) => {
        if (!output.json) output.line(`indexing ${what}`);
        const progress = session.progress();
        const start = performance.now();
        const report = await cache
          .index(what, {
            platform: platform === undefined ? undefined : parsePlatform(platform),
            signal: session.signal,
            onProgress: ({ descriptor, read, state }) => {
              if (state === 'reading') progress.update(descriptor, read);
              else progress.done(descriptor);
            },
          })
          .finally(() => {
            progress.stop();
          });
        const milliseconds = performance.now() - start;
        warnOfClaimedName(cache, what, output);
        warnOfClaimedFiles({ claimed: report.layers.some((layer) => layer.claimed) }, output);
        if (output.json) {
          output.document({ ...report, milliseconds });
          return;
        }
        const { layers, hits, files, bytesRead } = report;
        output.line(
          `${plural(layers.length, 'layer')}, ${plural(hits, 'cache hit')}, ${plural(files, 'file')}, ${formatBytes(bytesRead)} read, ${formatDuration(milliseconds)}`,
        );
      },
      { create: false },
    );
  },
};
