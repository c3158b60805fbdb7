import { Exit, ExitCode } from '../failure.js';
import { formatBytes, formatDuration, formatTable, plural } from '../output.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly repair?: boolean;
}

export const verify: CommandModule = {
  register: (program) =>
    program
      .command('verify')
      .description('check everything in the cache: every byte, every pair of digest and diffID')
      .option('--repair', 'drop or fetch again what is broken, take up blobs that lost their entry')
      .addHelpText('after', example('layercache verify --repair')),

  async run(session, command) {
    const { repair = false } = command.opts<Options>();
    const { output } = session;
    const bar = session.stepProgress();
    const report = await session
      .withCache(
        (cache) =>
          cache.verify({
            repair,
            signal: session.signal,
            onProgress: ({ step, done, total }) => {
              bar.update(step, done, total);
            },
          }),
        { create: false, repair },
      )
      .finally(() => {
        bar.stop();
      });
    if (output.json) {
      output.document(report);
    } else {
      const rows = report.steps.map((step) => [
        step.name,
        String(step.checked),
        String(step.problems),
        formatDuration(step.milliseconds),
      ]);
      output.line(formatTable(['STEP', 'CHECKED', 'PROBLEMS', 'TIME'], rows));
      for (const { step, message, repaired } of report.problems) {
        output.line(`${repaired ? 'repaired' : 'broken'}: ${step}: ${message}`);
      }
      const found = Object.entries(report.found).flatMap(([kind, count]) =>
        count > 0 ? [`${count} ${kind}`] : [],
      );
      if (found.length > 0) output.line(found.join(', '));
      const absent = report.absent === 0 ? '' : `; ${plural(report.absent, 'blob')} not here`;
      output.note(`${formatBytes(report.bytes)} hashed${absent}`);
    }
    if (!report.ok) throw new Exit(ExitCode.failed);
  },
};
