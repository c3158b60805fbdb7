import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { isLoopbackAddress } from './loopback-address.js';
import { parseRequestTarget } from './request-target.js';
import { invalid } from './route.js';

export interface HostNames {
  /** Names that the server goes by, beside those that go without saying. */
  readonly names: ReadonlySet<string>;
  /** Whether others than this machine may reach the server. */
  readonly isPublic: boolean;
}

/** The names by which other machines know this one. */
const MACHINE: ReadonlySet<string> = machineNames();

/**
 * Refuses a request that is for a name by which this server does not go.
 *
 * A page of evil.example in a browser may talk to evil.example, and whoever owns that name can make it mean 127.0.0.1
 * at any time (DNS rebinding). The browser then sends `Host: evil.example`. An IP address cannot be made to mean
 * another one, so any is good; `localhost` is good for a connection that comes in over loopback.
 *
 * @throws RegistryError with status 421 for another name, 400 where `Host` is missing or malformed (RFC 9112,
 *   section 3.2)
 */
export function checkHost(request: IncomingMessage, names: HostNames): void {
  const hosts = request.rawHeaders.filter(
    (_, at, all) => at % 2 === 1 && all[at - 1]?.toLowerCase() === 'host',
  );
  if (hosts.length > 1) throw invalid('UNSUPPORTED', 'the request has more than one Host header');
  const [host] = hosts;
  // HTTP/1.0 has no Host header. No browser speaks it.
  if (host === undefined && request.httpVersion !== '1.0') {
    throw invalid('UNSUPPORTED', 'the request has no Host header');
  }
  if (host !== undefined) checkName(host, request, names);
  const target = request.url ?? '/';
  if (target.startsWith('/')) return;
  const { authority } = parseRequestTarget(target);
  if (authority !== undefined) checkName(authority, request, names);
}

function checkName(host: string, { socket }: IncomingMessage, { names, isPublic }: HostNames): void {
  const name = hostName(host);
  if (name === undefined) {
    throw invalid(
      'UNSUPPORTED',
      `${JSON.stringify(host.slice(0, 300))} is not a host with or without a port`,
    );
  }
  if (isIP(name) !== 0 || names.has(name)) return;
  const isLocal = isLoopbackAddress(socket.localAddress ?? '');
  if (isLocal && name === 'localhost') return;
  if ((isPublic || !isLocal) && MACHINE.has(name)) return;
  throw invalid(
    'DENIED',
    `this server does not go by the name ${name}: if it should, start it with --hostname ${name}, or with the option hostnames of createRegistryServer`,
    421,
  );
}

/**
 * The name or IP address of `host`, `host:port` or `[address]:port`, in the form in which names are compared: in lower
 * case, without the dot at the end, without brackets. Undefined when it is malformed.
 */
export function hostName(host: string): string | undefined {
  const [, bracketed, plain] =
    /^(?:\[([0-9a-f:.]+(?:%[\w.~%-]{1,40})?)\]|([a-z0-9_.-]{1,255}))(?::\d{0,5})?$/i.exec(host) ?? [];
  if (bracketed !== undefined) {
    const address = bracketed.replace(/%.*$/, '');
    return isIP(address) === 6 ? address : undefined;
  }
  const name = plain?.toLowerCase().replace(/\.$/, '');
  return name === '' ? undefined : name;
}

function machineNames(): Set<string> {
  const full = hostName(hostname());
  if (full === undefined) return new Set();
  const names = new Set([full, full.split('.')[0] ?? full]);
  // A machine may be called so. Then it is a name that only loopback has.
  names.delete('localhost');
  return names;
}
