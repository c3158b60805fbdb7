import { example, type CommandModule } from './command.js';

interface Options {
  readonly force?: boolean;
}

export const rm: CommandModule = {
  register: (program) =>
    program
      .command('rm')
      .description('remove images (with layers no other image uses) or blobs; missing ones are ignored')
      .argument('<name...>', 'names of images, or digests')
      .option('--force', 'also blobs that an image needs')
      .addHelpText(
        'after',
        example('layercache rm docker.io/library/alpine:3.20', 'layercache rm sha256:9f32…'),
      ),

  async run(session, command) {
    const { force = false } = command.opts<Options>();
    const results = await session.withCache(
      async (cache) => {
        const done: { name: string; removed: boolean }[] = [];
        for (const name of command.args) done.push({ name, removed: await cache.remove(name, { force }) });
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
