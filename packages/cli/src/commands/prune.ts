import { strategyNamed, type PruneReport, type PrunedItem } from '@layercache/cache';
import { shortDigest } from '@layercache/oci';
import { formatBytes, formatTable, plural } from '../output.js';
import { parseDuration, parseSize } from '../quantity.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly maxSize?: string;
  readonly unusedFor?: string;
  readonly strategy?: string;
  readonly dryRun?: boolean;
}

export const prune: CommandModule = {
  register: (program) =>
    program
      .command('prune')
      .description(
        'remove expired images and unreferenced blobs, and what exceeds a size; pinned images stay',
      )
      .option(
        '--max-size <size>',
        'evict until the cache takes no more on disk: 20GB, 512MiB (default: --limit)',
      )
      .option('--unused-for <time>', 'also remove images that were not used for so long: 12h, 7d, 4w')
      .option(
        '--strategy <name>',
        'the order to evict in: cost-aware, lru, ttl, size, composite',
        'cost-aware',
      )
      .option('--dry-run', 'say what would be removed and why, and remove nothing')
      .addHelpText(
        'after',
        example('layercache prune --dry-run --unused-for 7d', 'layercache prune --max-size 20GB'),
      ),

  async run(session, command) {
    const { maxSize, unusedFor, strategy = '', dryRun } = command.opts<Options>();
    const options = {
      maxSize: maxSize === undefined ? session.limit : parseSize(maxSize, '--max-size'),
      unusedFor: unusedFor === undefined ? undefined : parseDuration(unusedFor, '--unused-for'),
      strategy: strategyNamed(strategy),
      dryRun,
      signal: session.signal,
    };
    const report = await session.withCache((cache) => cache.prune(options), { create: false });
    const { output } = session;
    if (output.json) {
      output.document(report);
      return;
    }
    if (report.items.length > 0) output.line(table(report));
    output.note(
      `${plural(report.items.length, 'item')}, ${formatBytes(report.bytes)} ${report.dryRun ? 'would be freed' : 'freed'}`,
    );
  },
};

const REASONS: Readonly<Record<PrunedItem['reason'], string>> = {
  expired: 'its time is over',
  unused: 'not used for long',
  size: 'too much',
  orphan: 'nothing leads to it',
  partial: 'interrupted download',
};

function table({ items }: PruneReport): string[] {
  return formatTable(
    ['SIZE', 'KIND', 'LAST USE', 'WHY', 'WHAT'],
    items.map((item) => [
      formatBytes(item.bytes),
      item.kind,
      item.usedAt.toISOString().slice(0, 16).replace('T', ' '),
      REASONS[item.reason],
      item.names.join(' ') || (item.digest === undefined ? '-' : shortDigest(item.digest)),
    ]),
  );
}
