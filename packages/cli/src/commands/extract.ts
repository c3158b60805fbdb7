import { escapeControls } from '@layercache/layer';
import { remarkNotes } from '../layer-notes.js';
import { openImage } from '../open-view.js';
import { formatBytes, plural } from '../output.js';
import { warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly platform?: string;
}

export const extract: CommandModule = {
  register: (program) =>
    program
      .command('extract')
      .description('write the files of an image to a new or empty folder, and nothing outside it')
      .argument('<image>', 'the name of an image, or the digest of its manifest')
      .argument('<dir>', 'the folder: new, or empty')
      .option('--platform <os/arch>', 'which image of an index (default: Linux on this processor)')
      .addHelpText('after', example('layercache extract alpine:3.20 ./rootfs')),

  async run(session, command) {
    const [image = '', dir = ''] = command.args;
    const { platform } = command.opts<Options>();
    const { output, signal } = session;
    await session.withCache(
      async (cache) => {
        warnOfClaimedName(cache, image, output);
        const view = await openImage(cache, image, { platform, signal, provenOnly: true });
        const extracted = await view.extract(dir, { signal });
        if (output.json) {
          output.document({ image, dir, ...extracted, notes: view.merged.notes });
          return;
        }
        const { names, bytes, skipped, hasOwners, withoutXattrs } = extracted;
        output.line(`${dir}  ${plural(names, 'name')}, ${formatBytes(bytes)}`);
        for (const path of skipped) output.line(`left out: /${escapeControls(path)}: a device or FIFO`);
        if (withoutXattrs > 0) {
          output.line(`left out: extended attributes of ${plural(withoutXattrs, 'file')}`);
        }
        if (!hasOwners) output.line('left out: owners, set-uid and set-gid: only root can set them');
        remarkNotes(view.merged, session);
      },
      { create: false },
    );
  },
};
