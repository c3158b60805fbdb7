import { Readable } from 'node:stream';
import { writeWholeFile, type CacheStats, type LayerCache } from '@layercache/cache';
import { shortDigest } from '@layercache/oci';
import { formatBytes, formatTable, plural, type Output } from '../output.js';
import { example, type CommandModule } from './command.js';

export const stats: CommandModule = {
  register: (program) =>
    program
      .command('stats')
      .description('print what is in the cache and what it costs')
      .option('--html <file>', 'write a page with a treemap there as well: one file, which asks for nothing')
      .addHelpText(
        'after',
        example(
          'layercache stats',
          'layercache stats --html report.html',
          'layercache --json stats | jq .disk.total',
        ),
      ),

  async run(session, command) {
    const { output, signal } = session;
    const { html } = command.opts<{ readonly html?: string }>();
    const found = await session.withCache(
      (cache) => (html === undefined ? cache.stats({ signal }) : withPage(cache, html, signal)),
      { create: false },
    );
    if (output.json) output.document(found);
    else print(output, found);
  },
};

async function withPage(cache: LayerCache, file: string, signal: AbortSignal): Promise<CacheStats> {
  const { stats, html } = await cache.report({ signal });
  await writeWholeFile(file, Readable.from([Buffer.from(html)]), signal);
  return stats;
}

function print(output: Output, stats: CacheStats): void {
  const { disk, deduplication, pairs, unreferenced } = stats;
  output.line(
    [
      `${formatBytes(disk.total)} on disk: ${plural(stats.blobs, 'blob')} of ${formatBytes(disk.blobs)}`,
      `index ${formatBytes(disk.index)}`,
      `side state ${formatBytes(disk.sideState)}`,
      `unfinished ${formatBytes(disk.ingest)}`,
    ].join(', '),
  );
  const absent = stats.absent === 0 ? '' : `, ${plural(stats.absent, 'blob')} not here`;
  output.line(`${plural(stats.entries, 'entry', 'entries')}${absent}`);
  output.line(
    `${plural(pairs.proven + pairs.claimed + pairs.unpaired, 'layer')}: ${pairs.proven} proven, ${pairs.claimed} claimed, ${pairs.unpaired} with one name only`,
  );
  output.line(
    `deduplication ${deduplication.ratio.toFixed(2)}: images of ${formatBytes(deduplication.logical)} take ${formatBytes(deduplication.unique)}`,
  );
  if (unreferenced.blobs > 0) {
    output.line(`no image needs ${plural(unreferenced.blobs, 'blob')} of ${formatBytes(unreferenced.size)}`);
  }
  output.line(`${formatBytes(stats.reclaimable.free)} can be made again, or nothing leads to it`);
  table(
    output,
    ['KIND', 'BLOBS', 'SIZE', 'RECLAIMABLE'],
    stats.kinds,
    ({ kind, blobs, size, reclaimable }) =>
      blobs === 0 ? undefined : [kind, String(blobs), formatBytes(size), formatBytes(reclaimable)],
  );
  table(output, ['SIZE', 'SHARED', 'UNIQUE', 'LAYERS', 'LAST USE', 'IMAGE'], stats.images, (image) => [
    formatBytes(image.size),
    formatBytes(image.shared),
    formatBytes(image.unique),
    String(image.layers),
    age(image.usedAt, stats.at),
    `${image.names.join(' ') || shortDigest(image.digest)}${image.pinned ? ' (pinned)' : ''}`,
  ]);
  table(output, ['SIZE', 'KIND', 'IMAGES', 'LAST USE', 'LARGEST BLOBS'], stats.top, (blob) => [
    formatBytes(blob.size),
    blob.kind,
    String(blob.images),
    age(blob.usedAt, stats.at),
    shortDigest(blob.digest),
  ]);
  table(output, ['UNUSED FOR', 'BLOBS', 'SIZE'], stats.ages, ({ until, blobs, size }, position) =>
    blobs === 0
      ? undefined
      : [span(stats.ages[position - 1]?.until, until), String(blobs), formatBytes(size)],
  );
}

function table<T>(
  output: Output,
  header: readonly string[],
  items: readonly T[],
  row: (item: T, position: number) => string[] | undefined,
): void {
  const rows = items.flatMap((item, position) => {
    const cells = row(item, position);
    return cells === undefined ? [] : [cells];
  });
  if (rows.length > 0) output.line(['', ...formatTable(header, rows)]);
}

const UNITS = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
] as const;

function duration(milliseconds: number): string {
  const [unit, length] = UNITS.find(([, length]) => milliseconds >= length) ?? ['minute', 60_000];
  return plural(Math.floor(milliseconds / length), unit);
}

/** To the hour, as access times are. */
function age(usedAt: Date | undefined, now: Date): string {
  if (usedAt === undefined) return '-';
  const milliseconds = now.getTime() - usedAt.getTime();
  return milliseconds < 3_600_000 ? 'this hour' : `${duration(milliseconds)} ago`;
}

function span(from: number | undefined, until: number | undefined): string {
  if (from === undefined) return `less than ${duration(until ?? 0)}`;
  return until === undefined ? `${duration(from)} or more` : `${duration(from)} to ${duration(until)}`;
}
