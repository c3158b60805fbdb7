import { formatBytes, plural } from '../output.js';
import { example, type CommandModule } from './command.js';

export const pull: CommandModule = {
  register: (program) =>
    program
      .command('pull')
      .description('merge a whole cache from a registry into this one')
      .argument('<ref>', 'where from: REGISTRY/REPOSITORY:TAG')
      .addHelpText('after', example('layercache pull registry.example/team/cache:main')),

  async run(session, command) {
    const [source = ''] = command.args;
    const progress = session.progress();
    try {
      const result = await session.withCache((cache) =>
        cache.pull(source, {
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
      const { received, kept, entries, images } = result;
      session.output.note(
        `${plural(received.blobs, 'blob')} fetched (${formatBytes(received.bytes)}), ${kept} already here; the cache there has ${plural(entries, 'entry', 'entries')} and ${plural(images, 'named image')}`,
      );
      session.output.line(`${result.name}@${result.digest}`);
    } finally {
      progress.stop();
    }
  },
};
