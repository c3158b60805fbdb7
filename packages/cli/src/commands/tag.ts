import type { LayerCache, ResolvedTag } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { parseReference } from '@layercache/registry';
import { Argument } from 'commander';
import { formatTable } from '../output.js';
import type { Session } from '../session.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly maxAge?: number;
  readonly offline?: boolean;
  readonly staleIfError?: boolean;
}

type Action = (cache: LayerCache, reference: string, session: Session, options: Options) => Promise<void>;

const actions: Readonly<Record<string, Action>> = {
  async resolve(cache, reference, session, options) {
    const { output, signal } = session;
    const resolved = await cache.tags.resolve(reference, { ...options, signal });
    const { rateLimit } = session.client(parseReference(resolved.reference).registry);
    if (output.json) output.document({ ...shown(resolved), rateLimit });
    else output.line(resolved.digest);
    if (resolved.source === 'stale') {
      output.note(`the registry is down: this is what it said at ${resolved.resolvedAt.toISOString()}`);
    }
    if (rateLimit !== undefined) {
      const all = rateLimit.limit === undefined ? '' : ` of ${rateLimit.limit}`;
      output.note(`${rateLimit.remaining}${all} pulls left at the registry`);
    }
    if (resolved.moved !== undefined) output.note(`moved from ${resolved.moved.from}`);
  },

  history(cache, reference, { output }) {
    const moves = cache.tags.history(reference);
    if (moves.length === 0) {
      throw new LayercacheError(
        'NOT_FOUND',
        `${reference} was never resolved here: layercache tag resolve does it`,
      );
    }
    if (output.json) output.document(moves);
    else {
      const rows = moves.map(({ digest, firstSeen, lastSeen }) => [
        firstSeen.toISOString(),
        lastSeen.toISOString(),
        digest,
      ]);
      output.line(formatTable(['FIRST SEEN', 'LAST SEEN', 'DIGEST'], rows));
    }
    return Promise.resolve();
  },

  async invalidate(cache, reference, { output }) {
    const known = await cache.tags.invalidate(reference);
    if (output.json) output.document({ reference, known });
    else
      output.note(
        known ? `${reference} is asked for again next time` : `${reference} was never resolved here`,
      );
  },
};

export const tag: CommandModule = {
  register: (program) =>
    program
      .command('tag')
      .description('what a tag means: ask (not more often than needed), look back, or forget')
      .addArgument(new Argument('<action>', 'what to do').choices(Object.keys(actions)))
      .argument('<reference>', 'an image reference: docker.io/library/alpine:3.20')
      .option(
        '--max-age <seconds>',
        'resolve: how old an answer may be; 0 asks now (default: five minutes)',
        parseSeconds,
      )
      .option('--offline', 'resolve: ask no registry')
      .option('--stale-if-error', 'resolve: when the registry is down, what it said last')
      .addHelpText(
        'after',
        example('layercache tag resolve alpine:3.20', 'layercache tag history alpine:3.20'),
      ),

  async run(session, command) {
    const [action = '', reference = ''] = command.args;
    await session.withCache(async (cache) => {
      await actions[action]?.(cache, reference, session, command.opts<Options>());
    });
  },
};

function shown({ descriptor, ...resolved }: ResolvedTag): object {
  return { ...resolved, mediaType: descriptor.mediaType, size: descriptor.size };
}

/** Milliseconds. */
function parseSeconds(text: string): number {
  if (/^\d{1,12}(\.\d+)?$/.test(text)) return Number(text) * 1000;
  throw new LayercacheError('USAGE', `--max-age ${text}: expected a number of seconds`);
}
