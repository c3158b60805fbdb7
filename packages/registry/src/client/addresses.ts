import { BlockList, isIP } from 'node:net';

/** Addresses that mean another host on each machine: unspecified and link-local ones, where clouds serve metadata. */
const linkLocal = new BlockList();
linkLocal.addSubnet('169.254.0.0', 16, 'ipv4');
linkLocal.addSubnet('0.0.0.0', 8, 'ipv4');
linkLocal.addSubnet('fe80::', 10, 'ipv6');
linkLocal.addSubnet('fd00:ec2::', 32, 'ipv6');
linkLocal.addAddress('::', 'ipv6');
const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Whether a host name is this machine, to which plain HTTP is no risk. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (host === 'localhost' || host.endsWith('.localhost')) return true;
  if (isIP(host) === 4) return host.startsWith('127.');
  return host === '::1';
}

/** Whether a host is this machine, as a name or any of its addresses. */
export function isHereOnly(host: string): boolean {
  return isLoopback(host) || listed(loopback, host);
}

/** Whether a host is an address that means another host on each machine. */
export function isLinkLocal(host: string): boolean {
  return listed(linkLocal, host);
}

/**
 * Whether a redirect may lead to a host: a registry elsewhere cannot send a client to a process of its own machine, or to
 * a cloud's metadata.
 */
export function mayRedirect(from: URL, target: URL): boolean {
  const host = target.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  if (target.hostname === from.hostname) return true;
  if (isLinkLocal(host)) return false;
  return !isHereOnly(host) || isLoopback(from.hostname);
}

function listed(addresses: BlockList, host: string): boolean {
  const version = isIP(host);
  return version !== 0 && addresses.check(host, version === 4 ? 'ipv4' : 'ipv6');
}
