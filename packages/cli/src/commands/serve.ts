import { once } from 'node:events';
import type { LayerCache } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { createRegistryServer } from '@layercache/registry';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly listen: string;
  readonly upstream?: string;
  readonly staleIfError?: boolean;
}

export const serve: CommandModule = {
  register: (program) =>
    program
      .command('serve')
      .description('be a registry, to read and to write, or a pull-through mirror of one, until Ctrl-C')
      .option('--listen <host:port>', 'where to listen; port 0 takes a free one', '127.0.0.1:5000')
      .option('--upstream <registry>', 'be a mirror of this registry, for readers: docker.io')
      .option('--stale-if-error', 'with --upstream: while it is down, tags mean what it said last')
      .addHelpText(
        'after',
        example(
          'layercache serve --listen 127.0.0.1:5000',
          'docker pull 127.0.0.1:5000/docker.io/library/alpine:3.20',
          'layercache serve --upstream docker.io',
          'docker pull 127.0.0.1:5000/library/alpine:3.20',
        ),
      ),

  async run(session, command) {
    const { listen, upstream, staleIfError = false } = command.opts<Options>();
    if (staleIfError && upstream === undefined) {
      throw new LayercacheError('USAGE', '--stale-if-error is about the tags of an --upstream');
    }
    const { host, port } = parseListen(listen);
    const serving = async (cache: LayerCache): Promise<void> => {
      const registry = upstream === undefined ? cache.registry() : cache.mirror(upstream);
      const server = createRegistryServer(registry, { logger: session.logger });
      await server.listen({ host, port });
      try {
        if (session.output.json) session.output.document({ url: server.url });
        else session.output.line(server.url);
        const what = upstream === undefined ? cache.dir : `${upstream} from ${cache.dir}`;
        session.output.note(`serving ${what}; Ctrl-C ends it`);
        if (!session.signal.aborted) await once(session.signal, 'abort');
      } finally {
        await server.close();
      }
    };
    // Its clients have patience of their own: what the upstream refuses for now, they are told at once.
    const retry = upstream === undefined ? {} : { retry: { maxDelay: 1000 } };
    await session.withCache(serving, { staleIfError, ...retry });
  },
};

function parseListen(text: string): { host: string; port: number } {
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === '' || port > 65535) {
    throw new LayercacheError(
      'USAGE',
      `"${text}" is not where one can listen: expected HOST:PORT, as in 127.0.0.1:5000`,
    );
  }
  return { host: bracketed ?? (plain === '' || plain === undefined ? '127.0.0.1' : plain), port };
}
