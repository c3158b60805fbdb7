import type { NamePolicy, PullResult } from '@layercache/cache';
import { Option } from 'commander';
import { Exit, ExitCode } from '../failure.js';
import { formatBytes, plural, type Output } from '../output.js';
import { warnOfSkipped } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly lazy?: boolean;
  readonly names: NamePolicy;
}

export const pull: CommandModule = {
  register: (program) =>
    program
      .command('pull')
      .description('merge a whole cache from a registry into this one')
      .argument('<ref>', 'where from: REGISTRY/REPOSITORY:TAG')
      .addOption(
        new Option(
          '--names <how>',
          'names of images: ask their registries, take all, or ask nobody; what is not confirmed stays a claim',
        )
          .choices(['prove', 'trust', 'skip'])
          .default('prove'),
      )
      .option('--lazy', 'take the manifests only: blobs come when they are asked for')
      .addHelpText(
        'after',
        example(
          'layercache pull registry.example/team/cache:main',
          'layercache pull --lazy registry.example/team/cache:main',
        ),
      ),

  async run(session, command) {
    const [source = ''] = command.args;
    const { lazy = false, names } = command.opts<Options>();
    const progress = session.progress();
    try {
      const result = await session.withCache((cache) =>
        cache.pull(source, {
          lazy,
          names,
          signal: session.signal,
          onProgress: ({ descriptor, received, state }) => {
            if (state === 'receiving') progress.update(descriptor, received);
            else progress.done(descriptor);
          },
        }),
      );
      progress.stop();
      if (session.output.json) session.output.document(result);
      else report(session.output, result, lazy);
      warnOfSkipped(result.skipped, session.output);
      if (result.skipped.length > 0) throw new Exit(ExitCode.failed);
    } finally {
      progress.stop();
    }
  },
};

function report(output: Output, result: PullResult, lazy: boolean): void {
  const { received, kept, remote, entries, images, names } = result;
  output.note(
    `${plural(received.blobs, 'blob')} fetched (${formatBytes(received.bytes)}), ${kept} already here${lazy ? `, ${remote} left there until they are asked for` : ''}; the cache there has ${plural(entries, 'entry', 'entries')} and ${plural(images, 'named image')}`,
  );
  for (const { name, here, there } of names.different)
    output.warn(`${name} keeps its meaning here, ${here}; the cache there has ${there} under that name`);
  if (names.claimed.length > 0)
    output.note(
      `${plural(names.claimed.length, 'name')} not confirmed by a registry: layercache ls shows them as claimed`,
    );
  output.line(`${result.name}@${result.digest}`);
}
