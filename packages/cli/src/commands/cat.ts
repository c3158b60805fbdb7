import { openImage } from '../open-view.js';
import { toStdout } from '../stdout.js';
import { warnOfClaimedFiles, warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly platform?: string;
}

export const cat: CommandModule = {
  register: (program) =>
    program
      .command('cat')
      .description('write one file of an image to stdout, without unpacking the image')
      .argument('<image>', 'the name of an image, or the digest of its manifest')
      .argument('<path>', 'of the file in the image; symlinks are followed')
      .option('--platform <os/arch>', 'which image of an index (default: Linux on this processor)')
      .addHelpText('after', example('layercache cat alpine:3.20 /etc/os-release')),

  async run(session, command) {
    const [image = '', path = ''] = command.args;
    const { platform } = command.opts<Options>();
    const { signal } = session;
    await session.withCache(
      async (cache) => {
        warnOfClaimedName(cache, image, session.output);
        const view = await openImage(cache, image, { platform, signal });
        warnOfClaimedFiles(view, session.output);
        await toStdout(await view.open(path, { signal }), signal);
      },
      { create: false },
    );
  },
};
