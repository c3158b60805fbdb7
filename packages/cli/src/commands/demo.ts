import { runDemo } from '../demo/run-demo.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly dir: string;
}

export const demo: CommandModule = {
  register: (program) =>
    program
      .command('demo')
      .description('show the whole story on this machine: cache, both names, push, pull, serve')
      .option(
        '--dir <dir>',
        'where the two caches of the demo go; what an earlier demo left there is replaced',
        'demo-cache',
      )
      .addHelpText('after', example('layercache demo')),

  async run(session, command) {
    const { dir } = command.opts<Options>();
    const { output } = session;
    const quiet = { ...output, line: output.json ? () => undefined : output.line };
    const report = await runDemo(dir, quiet, { logger: session.logger, signal: session.signal });
    if (output.json) output.document(report);
  },
};
