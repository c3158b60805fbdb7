import { once } from 'node:events';
import type { LayerCache } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { createRegistryServer, readOnly, type Registry } from '@layercache/registry';
import { listensOnLoopback, parseListenAddress, type ListenAddress } from '../listen-address.js';
import { serveMetrics, type MetricsServer } from '../metrics-server.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly listen: string;
  readonly readOnly?: boolean;
  readonly insecure?: boolean;
  readonly hostname?: readonly string[];
  readonly upstream?: string;
  readonly staleIfError?: boolean;
  readonly metrics?: string;
}

export const serve: CommandModule = {
  register: (program) =>
    program
      .command('serve')
      .description('be a registry, to read and to write, or a pull-through mirror of one, until Ctrl-C')
      .option(
        '--listen <host:port>',
        'where to listen; port 0 takes a free one, without a host it is every address',
        '127.0.0.1:5000',
      )
      .option('--read-only', 'refuse every push and deletion; then others than this machine may be served')
      .option('--insecure', 'let anyone who can reach an address that is not loopback push and delete')
      .option(
        '--hostname <name>',
        'a name that clients use for this registry (repeatable); requests for other names are refused',
        (name: string, before: readonly string[] | undefined) => [...(before ?? []), name],
      )
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
          'layercache serve --listen 0.0.0.0:5000 --read-only --hostname registry.example',
        ),
      ),

  async run(session, command) {
    const options = command.opts<Options>();
    const { upstream, staleIfError = false, metrics, hostname = [] } = options;
    if (staleIfError && upstream === undefined) {
      throw new LayercacheError('USAGE', '--stale-if-error is about the tags of an --upstream');
    }
    const address = parseListenAddress(options.listen);
    const metricsAddress = metrics === undefined ? undefined : metricsAddressOf(metrics);
    await checkExposure(address, options);
    const serving = async (cache: LayerCache): Promise<void> => {
      const registry = registryOf(cache, options);
      const server = createRegistryServer(registry, { logger: session.logger, hostnames: hostname });
      let metricsServer: MetricsServer | undefined;
      try {
        if (metricsAddress !== undefined) {
          metricsServer = await serveMetrics(cache.metrics, metricsAddress, hostname);
        }
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

function registryOf(cache: LayerCache, options: Options): Registry {
  if (options.upstream !== undefined) return cache.mirror(options.upstream);
  return options.readOnly === true ? readOnly(cache.registry()) : cache.registry();
}

/**
 * Refuses to let others than this machine in unless the user has said how.
 *
 * @throws LayercacheError `USAGE`
 */
async function checkExposure(address: ListenAddress, options: Options): Promise<void> {
  if (options.readOnly === true || options.insecure === true || (await listensOnLoopback(address))) return;
  const { listen, upstream } = options;
  // A mirror has no writers, but its readers come by whatever its own credentials open.
  throw new LayercacheError(
    'USAGE',
    upstream === undefined
      ? `--listen ${listen} is not loopback: anyone who can reach this address could push and delete; add --read-only to refuse that, or --insecure to allow it`
      : `--listen ${listen} is not loopback: anyone who can reach this address could read all that your credentials for ${upstream} open; add --read-only if they may`,
  );
}

/** Numbers are not secret, but they are not given to everyone by leaving something out. */
function metricsAddressOf(text: string): ListenAddress {
  const address = parseListenAddress(text);
  if (address.host !== '') return address;
  throw new LayercacheError(
    'USAGE',
    `--metrics ${text} has no host: expected one such as 127.0.0.1${text} or 0.0.0.0${text}`,
  );
}
