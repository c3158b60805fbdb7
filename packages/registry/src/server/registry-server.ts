import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { LayercacheError, silentLogger, type Logger } from '@layercache/oci';
import type { Traffic } from '../client/transport.js';
import type { Registry } from '../registry.js';
import { countedTraffic } from './counted-traffic.js';
import { checkHost, hostName } from './host-check.js';
import { isLoopbackAddress } from './loopback-address.js';
import { refuseBytes, writeAnswer } from './raw-answer.js';
import { guarded, registryHandler, type RequestHandler } from './registry-handler.js';
import { UploadSessions } from './upload-sessions.js';
import { fileSpools, type OpenSpool } from './upload-spool.js';

export interface RegistryServerOptions {
  readonly logger?: Logger;
  /** Where uploads in chunks wait for their digest. Default: the registry's own place, or temporary files. */
  readonly openSpool?: OpenSpool;
  /** Milliseconds after which an upload that nobody touches is given up. Default: an hour. */
  readonly uploadIdle?: number;
  /** Uploads that may be open at one time. The one idle for longest is given up for a new one. Default: 256. */
  readonly uploadLimit?: number;
  /** Uploads that one client, by its IP address, may have open at one time. Default: 64. */
  readonly uploadLimitPerClient?: number;
  /**
   * Names that the server goes by. A request for another name is answered with 421 (see `checkHost`). Any IP address is
   * good, and so is `localhost` over loopback; a name that it listens on; and, unless it listens on loopback, the name
   * of the machine.
   */
  readonly hostnames?: readonly string[];
  /** What stands before the registry: it sees each request that is for this server first. */
  readonly wrap?: (handler: RequestHandler) => RequestHandler;
}

export interface RegistryServer {
  /** `http://127.0.0.1:5000`, once it listens. */
  readonly url: string;
  /** What answers a request, for a server of one's own. */
  readonly handler: RequestHandler;
  /** What went over the network so far. */
  readonly traffic: Readonly<Traffic>;
  /**
   * @param address.host a name or an IP address; empty: every address of this machine
   * @throws LayercacheError `NETWORK` when the address is taken, or not this machine's
   */
  listen(address: { readonly host: string; readonly port: number }): Promise<void>;
  /** Takes no more requests, lets those under way end for two seconds, and gives open uploads up. */
  close(): Promise<void>;
}

const HOUR = 60 * 60 * 1000;
/** A connection on which nothing moves for so long, in milliseconds, has lost its client. */
const SOCKET_IDLE = 10 * 60 * 1000;
const GRACE = 2000;

/**
 * Serves a registry over HTTP by the OCI distribution specification.
 *
 * @throws LayercacheError `USAGE` for a host name that is none
 */
export function createRegistryServer(
  registry: Registry,
  options: RegistryServerOptions = {},
): RegistryServer {
  const { logger = silentLogger, wrap = (handler: RequestHandler) => handler } = options;
  const uploads = new UploadSessions({
    openSpool: options.openSpool ?? registry.openSpool?.bind(registry) ?? fileSpools(),
    idle: options.uploadIdle ?? HOUR,
    limit: options.uploadLimit ?? 256,
    limitPerClient: options.uploadLimitPerClient ?? 64,
  });
  const names = new Set((options.hostnames ?? []).map(checkedName));
  let isPublic = false;
  const check = (request: IncomingMessage): void => {
    checkHost(request, { names, isPublic });
  };
  const traffic: Traffic = { requests: 0, bytesReceived: 0, bytesSent: 0 };
  const handler = countedTraffic(
    guarded(wrap(registryHandler({ registry, uploads, logger })), check, logger),
    traffic,
  );
  const server = serverOf(handler);
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
        if (host === '') server.listen(port, resolve);
        else server.listen(port, host, resolve);
      });
      const bound = server.address() as AddressInfo;
      isPublic = !isLoopbackAddress(bound.address);
      const name = hostName(host);
      if (name !== undefined) names.add(name);
      url = urlOf(bound);
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

/** An HTTP server whose every answer has a body that registry clients understand, also where node:http has its own. */
function serverOf(handler: RequestHandler): Server {
  const latest = new WeakMap<Duplex, ServerResponse>();
  const answer: RequestHandler = (request, response) => {
    latest.set(request.socket, response);
    handler(request, response);
  };
  // A blob takes as long as it takes: what counts is that something moves, not when the request is complete.
  const server = createServer({ requestTimeout: 0, requireHostHeader: false }, answer);
  server.timeout = SOCKET_IDLE;
  server.on('checkExpectation', answer);
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    refuseBytes(error, socket, latest.get(socket));
  });
  server.on('connect', (_request, socket) => {
    socket.on('error', () => undefined);
    writeAnswer(socket, 405, 'UNSUPPORTED', 'CONNECT is not supported: this is no proxy');
    socket.destroy();
  });
  return server;
}

function checkedName(name: string): string {
  const checked = hostName(name);
  if (checked !== undefined) return checked;
  throw new LayercacheError(
    'USAGE',
    `${JSON.stringify(name.slice(0, 300))} is not a host name: expected one such as registry.example`,
  );
}

function urlOf({ address, family, port }: AddressInfo): string {
  if (address === '0.0.0.0' || address === '::') return `http://127.0.0.1:${port}`;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}
