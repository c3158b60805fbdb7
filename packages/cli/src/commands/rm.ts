import { example, type CommandModule } from './command.js';

export const rm: CommandModule = {
  register: (program) =>
    program
      .command('rm')
      .description('remove images with all that no other needs, or blobs; what is not there is no failure')
      .argument('<name...>', 'names of images, or digests')
      .addHelpText(
        'after',
        example('layercache rm docker.io/library/alpine:3.20', 'layercache rm sha256:9f32…'),
      ),

  async run(session, command) {
    const results = await session.withCache(
      async (cache) => {
        const done: { name: string; removed: boolean }[] = [];
        for (const name of command.args) done.push({ name, removed: await cache.remove(name) });
        return done;
      },
      { create: false },
    );
    if (session.output.json) session.output.document(results);
    for (const { name, removed } of results) {
      session.output.note(removed ? `removed ${name}` : `${name} is not in the cache`);
    }
  },
};
