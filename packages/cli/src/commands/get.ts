import type { Readable } from 'node:stream';
import { writeWholeFile, type LayerCache } from '@layercache/cache';
import { LayercacheError, isLayercacheError } from '@layercache/oci';
import { Option } from 'commander';
import { toStdout } from '../stdout.js';
import { isStdoutTerminal } from '../terminal.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly form?: 'compressed' | 'uncompressed';
  readonly output?: string;
}

export const get: CommandModule = {
  register: (program) =>
    program
      .command('get')
      .description('write one blob, or a layer in either form, to a file or to stdout')
      .argument('<key>', 'a digest or a diffID')
      .addOption(
        new Option('--form <form>', 'the form of a layer (default: the one the key names)').choices([
          'compressed',
          'uncompressed',
        ]),
      )
      .option('-o, --output <file>', 'write here instead of to stdout')
      .addHelpText(
        'after',
        example(
          'layercache get sha256:9f32… -o layer.tar',
          'layercache get sha256:83ee… --form uncompressed | tar t',
        ),
      ),

  async run(session, command) {
    const [key = ''] = command.args;
    const { form, output } = command.opts<Options>();
    if (output === undefined && isStdoutTerminal()) {
      throw new LayercacheError('USAGE', 'a blob is not for a terminal: give a file with -o, or pipe it');
    }
    await session.withCache(async (cache) => {
      const stream = await open(cache, key, form, session.signal);
      await (output === undefined
        ? toStdout(stream, session.signal)
        : writeWholeFile(output, stream, session.signal));
    });
  },
};

async function open(
  cache: LayerCache,
  key: string,
  form: Options['form'],
  signal: AbortSignal,
): Promise<Readable> {
  if (form === 'compressed') return cache.layer(key).compressed({ signal });
  if (form === 'uncompressed') return cache.layer(key).uncompressed({ signal });
  try {
    return await cache.blob(key, { signal });
  } catch (error) {
    if (!isLayercacheError(error, 'NOT_FOUND')) throw error;
  }
  // Not a blob here under that digest: a diffID whose tar has to be made, or nothing.
  return cache.layer(key).uncompressed({ signal });
}
