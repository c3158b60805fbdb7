import { isLayercacheError } from '@layercache/oci';
import { Exit, ExitCode } from '../failure.js';
import { example, type CommandModule } from './command.js';

export const has: CommandModule = {
  register: (program) =>
    program
      .command('has')
      .description('say by the exit code whether a layer or blob is in the cache: 0 yes, 3 no')
      .argument('<key>', 'a digest or a diffID')
      .addHelpText('after', example('layercache has sha256:9f32… && echo cached')),

  async run(session, command) {
    const [key = ''] = command.args;
    let found = false;
    try {
      found = await session.withCache((cache) => Promise.resolve(cache.has(key)), { create: false });
    } catch (error) {
      // No cache has no layers.
      if (!isLayercacheError(error, 'NOT_FOUND')) throw error;
    }
    if (session.output.json) session.output.document({ key, found });
    if (!found) throw new Exit(ExitCode.notFound);
  },
};
