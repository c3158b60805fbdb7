import { formatBytes, plural } from '../output.js';
import { example, type CommandModule } from './command.js';

export const pull: CommandModule = {
  register: (program) =>
    program
      .command('pull')
      .description('merge a whole cache from a registry into this one')
      .argument('<ref>', 'where from: REGISTRY/REPOSITORY:TAG')
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
    const { lazy = false } = command.opts<{ readonly lazy?: boolean }>();
    const progress = session.progress();
    try {
      const result = await session.withCache((cache) =>
        cache.pull(source, {
          lazy,
          signal: session.signal,
          onProgress: ({ descriptor, received, state }) => {
            if (state === 'receiving') progress.update(descriptor, received);
            else progress.done(descriptor);
          },
        }),
      );
      progress.stop();
      if (session.output.json) {
        session.output.document(result);
        return;
      }
      const { received, kept, remote, entries, images } = result;
      session.output.note(
        `${plural(received.blobs, 'blob')} fetched (${formatBytes(received.bytes)}), ${kept} already here${lazy ? `, ${remote} left there until they are asked for` : ''}; the cache there has ${plural(entries, 'entry', 'entries')} and ${plural(images, 'named image')}`,
      );
      session.output.line(`${result.name}@${result.digest}`);
    } finally {
      progress.stop();
    }
  },
};
