import { BlockList, isIP } from 'node:net';
import { LayercacheError } from '@layercache/oci';
import { isLoopback } from './transport.js';

/** The address of a registry and how it is reached. It decides which token services the registry may name. */
export interface Home {
  /** As in a reference: `registry.example:5000`. */
  readonly registry: string;
  readonly base: URL;
  /** Whether the user allowed plain HTTP to hosts other than this machine. */
  readonly plainHttp: boolean;
}

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

/**
 * Reads the address of a token service. A registry may name any host for its tokens, but the user's credentials go
 * there over TLS, and a registry elsewhere cannot send them to a process of this machine or to a cloud's metadata.
 *
 * @throws LayercacheError `UNAUTHORIZED`
 */
export function parseRealm(text: string, home: Home): URL {
  const refuse = (why: string): never => {
    throw new LayercacheError(
      'UNAUTHORIZED',
      `${home.registry} sends to ${JSON.stringify(text.slice(0, 200))} for a token, ${why}: refused`,
    );
  };
  if (!URL.canParse(text)) return refuse('which is not an HTTPS address');
  const realm = new URL(text);
  if (realm.username !== '' || realm.password !== '') return refuse('which has a user name in it');
  const host = realm.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  if (realm.protocol !== 'https:') {
    const isPlain = realm.protocol === 'http:' && home.base.protocol === 'http:';
    if (!isPlain || !(home.plainHttp || isLoopback(host))) return refuse('which is not an HTTPS address');
  }
  if (realm.hostname === home.base.hostname) return realm;
  if (listed(linkLocal, host)) return refuse('which is an address of no public host');
  const isHere = isLoopback(host) || listed(loopback, host);
  if (isHere && !isLoopback(home.base.hostname)) return refuse('which is an address of this machine');
  return realm;
}

function listed(addresses: BlockList, host: string): boolean {
  const version = isIP(host);
  return version !== 0 && addresses.check(host, version === 4 ? 'ipv4' : 'ipv6');
}
