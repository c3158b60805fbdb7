import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Metrics } from '@layercache/cache';
import { LayercacheError } from '@layercache/oci';
import { RegistryError, checkHost, hostName, isLoopbackAddress } from '@layercache/registry';

export interface MetricsServer {
  /** `http://127.0.0.1:9464/metrics` */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Serves the metrics of a cache as Prometheus text under `/metrics`.
 *
 * @param hostnames names that it goes by, beside its addresses and those of the machine
 * @throws LayercacheError `UNSUPPORTED` without prom-client, which is optional; `NETWORK` when the address is taken
 */
export async function serveMetrics(
  metrics: Metrics,
  { host, port }: { readonly host: string; readonly port: number },
  hostnames: readonly string[] = [],
): Promise<MetricsServer> {
  const register = await prometheusRegister(metrics);
  const names = new Set([...hostnames, host].flatMap((name) => hostName(name) ?? []));
  let isPublic = false;
  const server = createServer((request, response) => {
    try {
      checkHost(request, { names, isPublic });
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      response.writeHead(error.status ?? 400, { 'Content-Type': 'text/plain' }).end(`${error.message}\n`);
      return;
    }
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    void register.metrics().then(
      (text) => response.writeHead(200, { 'Content-Type': register.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `cannot listen on ${host}:${port}: ${cause.message}`;
      reject(new LayercacheError('NETWORK', message, { cause }));
    });
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  isPublic = !isLoopbackAddress(bound.address);
  return {
    url: `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}/metrics`,
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
    },
  };
}

async function prometheusRegister(
  metrics: Metrics,
): Promise<{ readonly contentType: string; metrics(): Promise<string> }> {
  try {
    const [{ Registry }, { toPrometheus }] = await Promise.all([
      import('prom-client'),
      import('@layercache/cache/prometheus'),
    ]);
    const register = new Registry();
    toPrometheus(metrics, register);
    return register;
  } catch (cause) {
    if (!(cause instanceof Error) || !('code' in cause) || cause.code !== 'ERR_MODULE_NOT_FOUND') throw cause;
    throw new LayercacheError('UNSUPPORTED', 'metrics need prom-client: npm install prom-client', { cause });
  }
}
