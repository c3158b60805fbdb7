import { formatJson, formatMtree, formatText } from '@layercache/layer';
import { Option } from 'commander';
import { remarkNotes } from '../layer-notes.js';
import { viewFiles, type ViewedFiles } from '../open-view.js';
import { jsonToStdout, textToStdout } from '../stdout.js';
import { warnOfClaimedFiles, warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

type Format = 'text' | 'json' | 'mtree';

interface Options {
  readonly format?: Format;
  readonly platform?: string;
}

const FORMATS: Readonly<Record<Format, (files: ViewedFiles) => Iterable<string>>> = {
  text: ({ merged }) => formatText(merged),
  json: ({ merged, claimedLayers }) => formatJson(merged, { claimedLayers }),
  mtree: ({ merged }) => formatMtree(merged),
};

export const files: CommandModule = {
  register: (program) =>
    program
      .command('files')
      .description('list the files of an image as its layers make them, or of one layer alone')
      .argument('<image|layer>', 'the name or digest of an image, or the digest or diffID of a layer')
      .addOption(
        new Option('--format <format>', 'how (default: text, or json with --json)').choices(
          Object.keys(FORMATS),
        ),
      )
      .option('--platform <os/arch>', 'which image of an index (default: Linux on this processor)')
      .addHelpText(
        'after',
        example('layercache files alpine:3.20', 'layercache files alpine:3.20 --format mtree > alpine.mtree'),
      ),

  async run(session, command) {
    const [what = ''] = command.args;
    const { format = session.output.json ? 'json' : 'text', platform } = command.opts<Options>();
    await session.withCache(
      async (cache) => {
        warnOfClaimedName(cache, what, session.output);
        const found = await viewFiles(cache, what, { platform, signal: session.signal });
        warnOfClaimedFiles({ claimed: found.claimedLayers.size > 0 }, session.output);
        const print = format === 'json' ? jsonToStdout : textToStdout;
        await print(FORMATS[format](found), session.signal);
        remarkNotes(found.merged, session);
      },
      { create: false },
    );
  },
};
