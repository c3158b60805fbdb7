import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { commands } from './commands/index.js';
import { report } from './failure.js';
import { LOG_LEVELS } from './logger.js';
import { Session } from './session.js';
import { endWithReader, printText, sayText } from './terminal.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

function createProgram(signal: AbortSignal): Command {
  const program = new Command('layercache')
    .description('A cache of container-image layers that is itself an OCI image layout.')
    .version(version)
    .option('--cache <dir>', 'the cache (default: $LAYERCACHE_DIR, or layercache in the user cache folder)')
    .option('--json', 'print data and errors as JSON')
    .option('--quiet', 'print nothing but data and errors')
    .addOption(new Option('--log-level <level>', 'what to log to stderr').choices(LOG_LEVELS).default('warn'))
    .option(
      '--limit <size>',
      'bytes that the cache may take on disk: 20GB, 512MiB (default: $LAYERCACHE_LIMIT)',
    )
    .option('--plain-http', 'talk HTTP without TLS to any registry, not only to loopback')
    .showHelpAfterError('(layercache --help shows the commands, layercache COMMAND --help what one takes)')
    .configureOutput({ writeOut: printText, writeErr: sayText })
    .exitOverride();
  for (const module of commands) {
    const command = module.register(program).exitOverride();
    command.action(async () => {
      await module.run(new Session(command, signal), command);
    });
  }
  return program;
}

/** Runs one command line and resolves with its exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const abort = new AbortController();
  const stop = (): void => {
    // A second one ends the process as it would without us.
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    abort.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  endWithReader();
  try {
    await createProgram(abort.signal).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, args.includes('--json'));
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
