import { lookup } from 'node:dns/promises';
import { LayercacheError } from '@layercache/oci';
import { isLoopbackAddress } from '@layercache/registry';

export interface ListenAddress {
  /** A name or an IP address; empty: every address of this machine. */
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `HOST:PORT`, `[ADDRESS]:PORT` or `:PORT`.
 *
 * @throws LayercacheError `USAGE`
 */
export function parseListenAddress(text: string): ListenAddress {
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === '' || port > 65535) {
    throw new LayercacheError(
      'USAGE',
      `"${text}" is not where one can listen: expected HOST:PORT, as in 127.0.0.1:5000`,
    );
  }
  return { host: bracketed ?? plain ?? '', port };
}

/**
 * Whether a server that listens there can be reached from this machine only. A name counts by what it resolves to.
 *
 * @throws LayercacheError `NETWORK` for a name that does not resolve
 */
export async function listensOnLoopback({ host }: ListenAddress): Promise<boolean> {
  if (host === '') return false;
  try {
    const addresses = await lookup(host, { all: true });
    return addresses.length > 0 && addresses.every(({ address }) => isLoopbackAddress(address));
  } catch (cause) {
    throw new LayercacheError('NETWORK', `cannot listen on "${host}": it is no address of this machine`, {
      cause,
    });
  }
}
