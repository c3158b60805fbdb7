import { Readable } from 'node:stream';
import { writeWholeFile, type LayerCache } from '@layercache/cache';
import { Argument } from 'commander';
import { formatBytes, formatTable } from '../output.js';
import type { Session } from '../session.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly output?: string;
  readonly verify: boolean;
}

export const debug: CommandModule = {
  register: (program) =>
    program
      .command('debug')
      .description('look at the cache itself: a report for a bug, its index, a smaller index')
      .addArgument(
        new Argument(
          '<what>',
          'export: one JSON for a bug report; index: its files; compact: write them anew',
        ).choices(['export', 'index', 'compact']),
      )
      .option('-o, --output <file>', 'export: write there instead of to stdout')
      .option('--no-verify', 'export: do not hash every byte')
      .addHelpText('after', example('layercache debug export -o report.json', 'layercache debug compact')),

  async run(session, command) {
    const [what] = command.args;
    const options = command.opts<Options>();
    await session.withCache(
      (cache) =>
        what === 'export' ? exportReport(session, cache, options) : showIndex(session, cache, what),
      { create: false },
    );
  },
};

async function exportReport(session: Session, cache: LayerCache, { output, verify }: Options): Promise<void> {
  const report = await cache.debugReport({ verify, signal: session.signal });
  if (output === undefined) {
    session.output.document(report);
    return;
  }
  await writeWholeFile(
    output,
    Readable.from([Buffer.from(`${JSON.stringify(report, undefined, 2)}\n`)]),
    session.signal,
  );
  session.output.note(
    `${output} has no credentials in it, but the names of your images: read it before you send it`,
  );
}

async function showIndex({ output }: Session, cache: LayerCache, what: string | undefined): Promise<void> {
  const stats = what === 'compact' ? await cache.compact() : cache.indexStats();
  if (output.json) {
    output.document(stats);
    return;
  }
  const { entries, names, index, map, journal } = stats;
  output.line(
    formatTable(
      ['FILE', 'SIZE', 'HOLDS'],
      [
        ['index.json', formatBytes(index?.size ?? 0), `${entries} entries, ${names} names`],
        [
          'map',
          formatBytes(map?.size ?? 0),
          map === undefined ? 'nothing' : `${map.records} entries, ${map.state}`,
        ],
        [
          'journal',
          formatBytes(journal?.size ?? 0),
          `${journal?.changes ?? 0} changes since the last commit, ${formatBytes(journal?.torn ?? 0)} torn`,
        ],
      ],
    ),
  );
}
