import { diffImages } from '@layercache/cache';
import { escapeControls, type Change, type ViewNode } from '@layercache/layer';
import { openImage } from '../open-view.js';
import { formatBytes, plural } from '../output.js';
import { jsonToStdout, textToStdout } from '../stdout.js';
import { warnOfClaimedFiles, warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly platform?: string;
}

export const diff: CommandModule = {
  register: (program) =>
    program
      .command('diff')
      .description('list the files added, removed and changed from one image to another, with their sizes')
      .argument('<before>', 'the name of an image, or the digest of its manifest')
      .argument('<after>', 'the same, of the other')
      .option('--platform <os/arch>', 'which image of an index (default: Linux on this processor)')
      .addHelpText('after', example('layercache diff alpine:3.19 alpine:3.20')),

  async run(session, command) {
    const [beforeName = '', afterName = ''] = command.args;
    const { platform } = command.opts<Options>();
    const { output, signal } = session;
    await session.withCache(
      async (cache) => {
        const before = await openImage(cache, beforeName, { platform, signal });
        const after = await openImage(cache, afterName, { platform, signal });
        for (const name of [beforeName, afterName]) warnOfClaimedName(cache, name, output);
        warnOfClaimedFiles({ claimed: before.claimed || after.claimed }, output);
        const changes = diffImages(before, after, { signal });
        const count: Record<Change['kind'], number> = { added: 0, removed: 0, changed: 0 };
        if (output.json) await jsonToStdout(jsonOf(counted(changes, count)), signal);
        else await textToStdout(textOf(counted(changes, count)), signal);
        output.note(
          `${plural(count.added, 'file')} added, ${count.removed.toLocaleString('en-US')} removed, ${count.changed.toLocaleString('en-US')} changed`,
        );
      },
      { create: false },
    );
  },
};

async function* counted(
  changes: AsyncIterable<Change>,
  count: Record<Change['kind'], number>,
): AsyncGenerator<Change> {
  for await (const change of changes) {
    count[change.kind]++;
    yield change;
  }
}

const MARKS: Readonly<Record<Change['kind'], string>> = { added: '+', removed: '-', changed: '~' };

async function* textOf(changes: AsyncIterable<Change>): AsyncGenerator<string> {
  for await (const change of changes) {
    const before = 'before' in change ? sizeOf(change.before) : '';
    const after = 'after' in change ? sizeOf(change.after) : '';
    const aspects = change.kind === 'changed' ? `  (${change.aspects.join(', ')})` : '';
    const path = `/${escapeControls(change.path)}`;
    yield `${MARKS[change.kind]} ${before.padStart(8)} ${after.padStart(8)}  ${path}${aspects}\n`;
  }
}

function sizeOf({ inode }: ViewNode): string {
  return inode.type === 'reg' ? formatBytes(inode.size) : inode.type;
}

/** An array with one change a line, so that an image of any size passes through. */
async function* jsonOf(changes: AsyncIterable<Change>): AsyncGenerator<string> {
  let separator = '[\n';
  for await (const change of changes) {
    yield `${separator}${JSON.stringify({
      kind: change.kind,
      path: `/${change.path}`,
      before: 'before' in change ? factsOf(change.before) : undefined,
      after: 'after' in change ? factsOf(change.after) : undefined,
      aspects: change.kind === 'changed' ? change.aspects : undefined,
    })}`;
    separator = ',\n';
  }
  yield separator === '[\n' ? '[]\n' : '\n]\n';
}

function factsOf({ inode }: ViewNode): { readonly type: string; readonly size: number | undefined } {
  return { type: inode.type, size: inode.type === 'reg' ? inode.size : undefined };
}
