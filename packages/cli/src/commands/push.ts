import type { Removal, SkippedPart } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { Exit, ExitCode } from '../failure.js';
import { formatBytes, plural } from '../output.js';
import { parseDuration, parseSize } from '../quantity.js';
import type { Session } from '../session.js';
import { ask } from '../terminal.js';
import { warnOfSkipped } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly images?: readonly string[];
  readonly since?: string;
  readonly maxSize?: string;
  readonly withUncompressed?: boolean;
  readonly dryRun?: boolean;
  readonly prune?: boolean;
  readonly check?: boolean;
  readonly yes?: boolean;
}

export const push: CommandModule = {
  register: (program) =>
    program
      .command('push')
      .description('share the whole cache through a registry, united with what is there')
      .argument('<ref>', 'where to: REGISTRY/REPOSITORY:TAG')
      .option('--images <name...>', 'only these images, with their layers and layer indexes')
      .option('--since <time>', 'only what was used since: a date, or 12h, 7d, 4w')
      .option('--max-size <size>', 'only what was used last, up to so many bytes: 500MB, 20GB')
      .option('--with-uncompressed', 'also tars that could be derived from a compressed form')
      .option(
        '--check',
        'ask the registry for all that the cache there lists, and send again what it has lost',
      )
      .option('--dry-run', 'say what would be sent, and send nothing')
      .option('--prune', 'remove from the cache there what is not pushed')
      .option('--yes', 'do not ask before removing')
      .addHelpText(
        'after',
        example(
          'layercache push registry.example/team/cache:main',
          'layercache push registry.example/team/cache:main --since 7d --max-size 20GB --prune',
        ),
      ),

  async run(session, command) {
    const [target = ''] = command.args;
    const options = command.opts<Options>();
    const { prune = false, yes = false } = options;
    if (prune && !yes && options.dryRun !== true && !process.stdin.isTTY) {
      throw new LayercacheError('USAGE', '--prune removes entries for everybody: confirm with --yes');
    }
    const progress = session.progress();
    try {
      const result = await session.withCache(
        (cache) =>
          cache.push(target, {
            images: options.images,
            since: options.since === undefined ? undefined : parseTime(options.since),
            maxSize: options.maxSize === undefined ? undefined : parseSize(options.maxSize, '--max-size'),
            withUncompressed: options.withUncompressed,
            dryRun: options.dryRun,
            check: options.check,
            ...(prune
              ? { prune: (removal) => yes || options.dryRun === true || confirm(session, target, removal) }
              : {}),
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
        failWhenSkipped(session, result.skipped);
        return;
      }
      const { dryRun, sent, mounted, present, listed, removed, entries, images } = result;
      session.output.note(
        [
          `${plural(sent.blobs, 'blob')} ${dryRun ? 'to send' : 'sent'} (${formatBytes(sent.bytes)})`,
          `${mounted} mounted`,
          `${present + listed} skipped (${listed} listed there, ${present} found there)`,
          ...(prune ? [`${removed} ${dryRun ? 'to remove' : 'removed'}`] : []),
        ].join(', ') +
          `; the cache there ${dryRun ? 'would have' : 'has'} ${plural(entries, 'entry', 'entries')} and ${plural(images, 'named image')}`,
      );
      session.output.line(`${result.name}@${result.digest}`);
      failWhenSkipped(session, result.skipped);
    } finally {
      progress.stop();
    }
  },
};

function failWhenSkipped(session: Session, skipped: readonly SkippedPart[]): void {
  warnOfSkipped(skipped, session.output);
  if (skipped.length > 0) throw new Exit(ExitCode.failed);
}

async function confirm(session: Session, target: string, removal: Removal): Promise<boolean> {
  const { entries, images } = removal;
  const question = `Remove ${plural(entries.length, 'entry', 'entries')} and ${plural(images.length, 'image manifest')} from ${target}? [y/N]`;
  return /^y(es)?$/i.test((await ask(question, session.signal)).trim());
}

function parseTime(text: string): Date {
  const time = /^\d+[a-z]$/.test(text)
    ? new Date(Date.now() - parseDuration(text, '--since'))
    : new Date(text);
  if (!Number.isNaN(time.getTime())) return time;
  throw new LayercacheError('USAGE', `--since ${text}: expected a date such as 2026-01-31, or 12h, 7d, 4w`);
}
