import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LayercacheError, silentLogger, type Logger } from '@layercache/oci';
import type { Traffic } from '../client/transport.js';
import type { Registry } from '../registry.js';
import { countedTraffic } from './counted-traffic.js';
import { registryHandler, type RequestHandler } from './registry-handler.js';
import { UploadSessions } from './upload-sessions.js';
import { fileSpools, type OpenSpool } from './upload-spool.js';

export interface RegistryServerOptions {
  readonly logger?: Logger;
  /** Where uploads in chunks wait for their digest. Default: temporary files. */
  readonly openSpool?: OpenSpool;
  /** Milliseconds after which an upload that nobody touches is given up. Default: an hour. */
  readonly uploadIdle?: number;
  /** Uploads that may be open at one time. Default: 500. */
  readonly uploadLimit?: number;
  /** What stands before the registry: it sees each request first. */
  readonly wrap?: (handler: RequestHandler) => RequestHandler;
}

export interface RegistryServer {
  /** `http://127.0.0.1:5000`, once it listens. */
  readonly url: string;
  /** What answers a request, for a server of one's own. */
  readonly handler: RequestHandler;
  /** What went over the network so far. */
  readonly traffic: Readonly<Traffic>;
  /** @throws LayercacheError `NETWORK` when the address is taken, or not this machine's */
  listen(address: { readonly host: string; readonly port: number }): Promise<void>;
  /** Takes no more requests, lets those under way end for two seconds, and gives open uploads up. */
  close(): Promise<void>;
}

const HOUR = 60 * 60 * 1000;
/** A connection on which nothing moves for so long, in milliseconds, has lost its client. */
const SOCKET_IDLE = 10 * 60 * 1000;
const GRACE = 2000;

/** Serves a registry over HTTP by the OCI distribution specification. */
export function createRegistryServer(
  registry: Registry,
  options: RegistryServerOptions = {},
): RegistryServer {
  const { logger = silentLogger, wrap = (handler: RequestHandler) => handler } = options;
  const uploads = new UploadSessions({
    openSpool: options.openSpool ?? fileSpools(),
    idle: options.uploadIdle ?? HOUR,
    limit: options.uploadLimit ?? 500,
  });
  const traffic: Traffic = { requests: 0, bytesReceived: 0, bytesSent: 0 };
  const handler = countedTraffic(wrap(registryHandler({ registry, uploads, logger })), traffic);
  // A blob takes as long as it takes: what counts is that something moves, not when the request is complete.
  const server = createServer({ requestTimeout: 0 }, handler);
  server.timeout = SOCKET_IDLE;
  let url: string | undefined;

  return {
    handler,
    traffic,
    get url() {
      if (url === undefined) throw new LayercacheError('USAGE', 'the registry server does not listen yet');
      return url;
    },
    async listen({ host, port }) {
      await new Promise<void>((resolve, reject) => {
        server.once('error', (cause) => {
          reject(
            new LayercacheError('NETWORK', `cannot listen on ${host}:${port}: ${cause.message}`, { cause }),
          );
        });
        server.listen(port, host, resolve);
      });
      url = urlOf(server.address() as AddressInfo);
    },
    async close() {
      const closed = new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
      // Connections of requests under way become idle later than now.
      const idle = setInterval(() => {
        server.closeIdleConnections();
      }, 20);
      const late = setTimeout(() => {
        server.closeAllConnections();
      }, GRACE);
      await closed;
      clearInterval(idle);
      clearTimeout(late);
      await uploads.endAll();
    },
  };
}

function urlOf({ address, family, port }: AddressInfo): string {
  if (address === '0.0.0.0' || address === '::') return `http://127.0.0.1:${port}`;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}
