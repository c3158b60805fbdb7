import { MediaType } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import type { ListOptions } from '../registry.js';
import type { Scope } from './authorizer.js';
import { type Exchanger } from './exchange.js';
import { headerOf } from './header.js';
import { shownUrl, type HttpResponse, type Transport } from './transport.js';

/** Bytes of a page of tags, repositories or referrers. */
const MAX_LIST_SIZE = 16 * 1024 * 1024;
/** Names asked for in one page; a registry may give fewer. */
const PAGE = '1000';

/** Reads what a registry lists in pages. */
export class Lister {
  readonly #exchanger: Exchanger;
  readonly #transport: Transport;
  readonly #base: URL;

  constructor(exchanger: Exchanger, transport: Transport, base: URL) {
    this.#exchanger = exchanger;
    this.#transport = transport;
    this.#base = base;
  }

  /** Pages linked by `Link: <…>; rel="next"` (distribution specification, "Listing Tags"). */
  async *pages(
    start: URL,
    scopes: readonly Scope[],
    doing: string,
    options: ListOptions,
  ): AsyncGenerator<Uint8Array> {
    let url: URL | undefined = start;
    url.searchParams.set('n', PAGE);
    if (options.after !== undefined) url.searchParams.set('last', options.after);
    const seen = new Set<string>();
    while (url !== undefined) {
      if (seen.has(url.href))
        throw new RegistryError('REGISTRY', `${doing} failed: the pages go in a circle`);
      seen.add(url.href);
      const response: HttpResponse = await this.#exchanger.send({
        method: 'GET',
        url,
        scopes,
        headers: { accept: `application/json, ${MediaType.index}` },
        expect: [200],
        doing,
        signal: options.signal,
      });
      yield await this.#transport.readAll(response, MAX_LIST_SIZE, options.signal);
      url = nextPage(response, this.#base);
    }
  }
}

function nextPage(response: HttpResponse, base: URL): URL | undefined {
  const target = /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(headerOf(response.headers, 'link') ?? '')?.[1];
  if (target === undefined) return undefined;
  if (!URL.canParse(target, response.url.href)) {
    const message = `${shownUrl(response.url)} links to ${JSON.stringify(target.slice(0, 200))}, which is no URL`;
    throw new RegistryError('REGISTRY', message, { status: response.status });
  }
  const url = new URL(target, response.url);
  // Behind a proxy the scheme or host in it is often wrong; the path and query are what counts.
  return new URL(`${url.pathname}${url.search}`, base);
}

/** distribution 2.8 sends all tags at once, in no order, and does not know `last`. */
export function inOrder(names: readonly string[], after: string | undefined): string[] {
  return names.filter((name) => after === undefined || name > after).sort();
}
