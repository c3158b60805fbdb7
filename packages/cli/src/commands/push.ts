import { formatBytes, plural } from '../output.js';
import { example, type CommandModule } from './command.js';

export const push: CommandModule = {
  register: (program) =>
    program
      .command('push')
      .description('share the whole cache through a registry, united with what is there')
      .argument('<ref>', 'where to: REGISTRY/REPOSITORY:TAG')
      .addHelpText('after', example('layercache push registry.example/team/cache:main')),

  async run(session, command) {
    const [target = ''] = command.args;
    const progress = session.progress();
    try {
      const result = await session.withCache(
        (cache) =>
          cache.push(target, {
            signal: session.signal,
            onProgress: ({ descriptor, state }) => {
              if (state === 'sending') progress.update(descriptor, 0);
              else progress.done(descriptor);
            },
          }),
        { create: false },
      );
      progress.stop();
      if (session.output.json) {
        session.output.document(result);
        return;
      }
      const { sent, mounted, present, entries, images } = result;
      session.output.note(
        `${plural(sent.blobs, 'blob')} sent (${formatBytes(sent.bytes)}), ${mounted} mounted, ${present} already there; the cache there has ${plural(entries, 'entry', 'entries')} and ${plural(images, 'image manifest')}`,
      );
      session.output.line(`${result.name}@${result.digest}`);
    } finally {
      progress.stop();
    }
  },
};
