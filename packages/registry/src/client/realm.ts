import { LayercacheError } from '@layercache/oci';
import { isHereOnly, isLoopback, isLinkLocal } from './addresses.js';

/** The address of a registry and how it is reached. It decides which token services the registry may name. */
export interface Home {
  /** As in a reference: `registry.example:5000`. */
  readonly registry: string;
  readonly base: URL;
  /** Whether the user allowed plain HTTP to hosts other than this machine. */
  readonly plainHttp: boolean;
}

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
  if (isLinkLocal(host)) return refuse('which is an address of no public host');
  if (isHereOnly(host) && !isLoopback(home.base.hostname))
    return refuse('which is an address of this machine');
  return realm;
}
