import { once } from 'node:events';
import type { LayerCache } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { createRegistryServer } from '@layercache/registry';
import { serveMetrics, type MetricsServer } from '../metrics-server.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly listen: string;
  readonly upstream?: string;
  readonly staleIfError?: boolean;
  readonly metrics?: string;
}

export const serve: CommandModule = {
  register: (program) =>
    program
      .command('serve')
      .description('be a registry, to read and to write, or a pull-through mirror of one, until Ctrl-C')
      .option('--listen <host:port>', 'where to listen; port 0 takes a free one', '127.0.0.1:5000')
      .option('--upstream <registry>', 'be a mirror of this registry, for readers: docker.io')
      .option('--stale-if-error', 'with --upstream: while it is down, tags mean what it said last')
      .option('--metrics <host:port>', 'serve Prometheus metrics there, under /metrics (needs prom-client)')
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
    const { listen, upstream, staleIfError = false, metrics } = command.opts<Options>();
    if (staleIfError && upstream === undefined) {
      throw new LayercacheError('USAGE', '--stale-if-error is about the tags of an --upstream');
    }
    const address = parseListen(listen);
    const metricsAddress = metrics === undefined ? undefined : parseListen(metrics);
    const serving = async (cache: LayerCache): Promise<void> => {
      const registry = upstream === undefined ? cache.registry() : cache.mirror(upstream);
      const server = createRegistryServer(registry, { logger: session.logger });
      let metricsServer: MetricsServer | undefined;
      try {
        if (metricsAddress !== undefined) metricsServer = await serveMetrics(cache.metrics, metricsAddress);
        await server.listen(address);
        if (session.output.json) session.output.document({ url: server.url, metrics: metricsServer?.url });
        else session.output.line(server.url);
        if (metricsServer !== undefined) session.output.note(`metrics at ${metricsServer.url}`);
        const what = upstream === undefined ? cache.dir : `${upstream} from ${cache.dir}`;
        session.output.note(`serving ${what}; Ctrl-C ends it`);
        if (!session.signal.aborted) await once(session.signal, 'abort');
      } finally {
        await metricsServer?.close();
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
