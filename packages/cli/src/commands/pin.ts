import { example, type CommandModule } from './command.js';

export const pin: CommandModule = {
  register: (program) =>
    program
      .command('pin')
      .description('keep images, whatever room is wanted')
      .argument('<name...>', 'names of images')
      .addHelpText('after', example('layercache pin docker.io/library/alpine:3.20')),

  async run(session, command) {
    await session.withCache(
      async (cache) => {
        for (const name of command.args) await cache.pin(name);
      },
      { create: false },
    );
  },
};

export const unpin: CommandModule = {
  register: (program) =>
    program
      .command('unpin')
      .description('let images go again when room is wanted')
      .argument('<name...>', 'names of images')
      .addHelpText('after', example('layercache unpin docker.io/library/alpine:3.20')),

  async run(session, command) {
    await session.withCache(
      async (cache) => {
        for (const name of command.args) await cache.unpin(name);
      },
      { create: false },
    );
  },
};
