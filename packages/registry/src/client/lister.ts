import { MediaType } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import type { ListOptions } from '../registry.js';
import type { Scope } from './authorizer.js';
import type { Endpoints } from './endpoints.js';
import type { Exchanger } from './exchange.js';
import type { HttpResponse, Transport } from './transport.js';

/** Bytes of a page of tags, repositories or referrers. */
const MAX_LIST_SIZE = 16 * 1024 * 1024;
/** Pages of one list. More would be a registry that invents them. */
const MAX_PAGES = 100_000;
/** Names asked for in one page; a registry may give fewer. */
const PAGE = '1000';

/** Reads what a registry lists in pages. */
export class Lister {
  readonly #exchanger: Exchanger;
  readonly #transport: Transport;
  readonly #endpoints: Endpoints;

  constructor(exchanger: Exchanger, transport: Transport, endpoints: Endpoints) {
    this.#exchanger = exchanger;
    this.#transport = transport;
    this.#endpoints = endpoints;
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
      if (seen.size >= MAX_PAGES)
        throw new RegistryError('REGISTRY', `${doing} failed: there are more than ${MAX_PAGES} pages`);
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
      url = this.#endpoints.nextPage(response, doing);
    }
  }
}

/** distribution 2.8 sends all tags at once, in no order, and does not know `last`. */
export function inOrder(names: readonly string[], after: string | undefined): string[] {
  return names.filter((name) => after === undefined || name > after).sort();
}
