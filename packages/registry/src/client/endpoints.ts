import { LayercacheError, isDigest, parseDigest, type Digest } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import { apiHost, isRegistryHost, isRepositoryName, isTag } from '../reference.js';
import { headerOf } from './header.js';
import { shownUrl, type HttpResponse } from './transport.js';

/**
 * The URLs of one registry. Every name is checked against its grammar before it becomes part of a URL, and every
 * URL that comes out is on the registry's own origin: credentials are attached to no other.
 */
export class Endpoints {
  /** `https://registry.example/v2/` */
  readonly base: URL;

  /** @throws LayercacheError `REFERENCE_INVALID` when `host` is anything but a host name or address, with or without a port */
  constructor(host: string, plainHttp: (hostname: string) => boolean) {
    if (!isRegistryHost(host)) {
      throw new LayercacheError(
        'REFERENCE_INVALID',
        `${JSON.stringify(host.slice(0, 100))} is not the host of a registry: expected a name such as registry.example:5000`,
      );
    }
    this.base = new URL(`https://${apiHost(host)}/v2/`);
    if (plainHttp(this.base.hostname)) this.base = new URL(`http://${apiHost(host)}/v2/`);
  }

  /** @throws LayercacheError `REFERENCE_INVALID` when `reference` is neither a tag nor a digest */
  manifest(repository: string, reference: string): URL {
    if (!isTag(reference) && !isDigest(reference)) {
      throw new LayercacheError(
        'REFERENCE_INVALID',
        `${JSON.stringify(reference.slice(0, 160))} is neither a tag nor a digest`,
      );
    }
    return this.#url(`${checkedName(repository)}/manifests/${reference}`);
  }

  blob(repository: string, digest: Digest): URL {
    return this.#url(`${checkedName(repository)}/blobs/${parseDigest(digest)}`);
  }

  uploads(repository: string): URL {
    return this.#url(`${checkedName(repository)}/blobs/uploads/`);
  }

  mount(repository: string, digest: Digest, from: string): URL {
    const url = this.uploads(repository);
    url.searchParams.set('mount', parseDigest(digest));
    url.searchParams.set('from', checkedName(from));
    return url;
  }

  tags(repository: string): URL {
    return this.#url(`${checkedName(repository)}/tags/list`);
  }

  referrers(repository: string, digest: Digest): URL {
    return this.#url(`${checkedName(repository)}/referrers/${parseDigest(digest)}`);
  }

  catalog(): URL {
    return this.#url('_catalog');
  }

  /**
   * The URL at which an upload goes on. The header may carry a query, and may be relative. It may not lead to another host; a
   * registry behind a proxy often names itself with the wrong scheme, which is corrected.
   *
   * @throws RegistryError `REGISTRY`
   */
  afterLocation(response: HttpResponse, doing: string): URL {
    const location = headerOf(response.headers, 'location');
    if (location === undefined) {
      throw new RegistryError(
        'REGISTRY',
        `${doing} failed: the registry did not say where to send it (no Location)`,
        { status: response.status },
      );
    }
    const target = this.#target(location, response, doing);
    if (target.host !== this.base.host) {
      throw new RegistryError(
        'REGISTRY',
        `${doing} failed: the registry sends the upload to another host, ${target.host.slice(0, 300)}`,
        { status: response.status },
      );
    }
    return this.#samePath(target);
  }

  /**
   * The next page of a list (distribution specification, "Listing Tags"), or undefined after the last one. Behind a
   * proxy the scheme or host of the link is often wrong, so only its path and query count.
   *
   * @throws RegistryError `REGISTRY`
   */
  nextPage(response: HttpResponse, doing: string): URL | undefined {
    const link = headerOf(response.headers, 'link') ?? '';
    const target = /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(link)?.[1];
    return target === undefined ? undefined : this.#samePath(this.#target(target, response, doing));
  }

  /** Reads a URL in the header of an answer. Only the registry's own answers may say where its client goes on. */
  #target(text: string, response: HttpResponse, doing: string): URL {
    const { status, url } = response;
    if (response.leftOrigin || url.origin !== this.base.origin) {
      throw new RegistryError(
        'REGISTRY',
        `${doing} failed: ${shownUrl(url)}, which is not the registry, says where to go on: refused`,
        { status },
      );
    }
    if (!URL.canParse(text, url.href)) {
      throw new RegistryError(
        'REGISTRY',
        `${doing} failed: the registry leads to ${JSON.stringify(text.slice(0, 200))}, which is no URL`,
        { status },
      );
    }
    return new URL(text, url);
  }

  /** The path and query of `target` at this registry. A path that begins with two slashes is no host here. */
  #samePath(target: URL): URL {
    const url = new URL(this.base);
    url.pathname = target.pathname;
    url.search = target.search;
    return url;
  }

  #url(path: string): URL {
    const url = new URL(this.base);
    url.pathname += path;
    return url;
  }
}

/** @throws LayercacheError `REFERENCE_INVALID` */
function checkedName(repository: string): string {
  if (isRepositoryName(repository)) return repository;
  throw new LayercacheError(
    'REFERENCE_INVALID',
    `${JSON.stringify(repository.slice(0, 300))} is not a repository name: expected lower-case words, as in team/app`,
  );
}
