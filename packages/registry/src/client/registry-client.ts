import { Readable } from 'node:stream';
import {
  IntegrityError,
  LayercacheError,
  MAX_MANIFEST_SIZE,
  MediaType,
  digestAlgorithm,
  digestOf,
  isDigest,
  isManifestMediaType,
  parseDocument,
  parseImageIndex,
  silentLogger,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import { z } from 'zod';
import { RegistryError } from '../registry-error.js';
import type {
  ByteSource,
  FetchBlobOptions,
  FetchedBlob,
  FetchedManifest,
  ListOptions,
  PushManifestOptions,
  Registry,
  RequestOptions,
} from '../registry.js';
import { referrerOf, subjectSchema } from '../subject.js';
import { Authorizer, scopeOf } from './authorizer.js';
import { bodyExtent, resumingBody, type BodyExtent } from './blob-body.js';
import { dockerCredentials, type CredentialStore } from './credentials.js';
import { FallbackReferrers } from './fallback-referrers.js';
import { Endpoints } from './endpoints.js';
import { Exchanger, discard } from './exchange.js';
import { headerOf } from './header.js';
import { Lister, inOrder } from './lister.js';
import type { RateLimit } from './rate-limit.js';
import { retryPolicy, type RetryOptions, type RetryPolicy } from './retry.js';
import { isLoopback } from './addresses.js';
import { Transport, type HttpResponse, type Traffic } from './transport.js';
import { Uploader } from './upload.js';

export interface RegistryClientOptions {
  /** Default: those of `docker login`. */
  readonly credentials?: CredentialStore;
  /** HTTP without TLS. Default: only to this machine. */
  readonly plainHttp?: boolean;
  readonly logger?: Logger;
  readonly retry?: RetryOptions;
  /** Milliseconds without a byte in either direction, after which a connection counts as broken. Default 30,000. */
  readonly timeout?: number;
  readonly userAgent?: string;
}

const ACCEPTED = [
  MediaType.manifest,
  MediaType.index,
  MediaType.dockerManifest,
  MediaType.dockerManifestList,
].join(', ');

/** A media type as a header can carry it: printable ASCII (RFC 6838 limits each half to 127 characters). */
const MEDIA_TYPE = /^[\x21-\x7e][\x20-\x7e]{0,254}$/;

const tagsSchema = z.looseObject({ tags: z.array(z.string()).nullable() });
const catalogSchema = z.looseObject({ repositories: z.array(z.string()).nullable() });

/** A registry over HTTP (OCI distribution specification 1.1). */
export class RegistryClient implements Registry {
  /** As in a reference: `docker.io`, `registry.example:5000`. */
  readonly host: string;
  readonly #endpoints: Endpoints;
  readonly #transport: Transport;
  readonly #exchanger: Exchanger;
  readonly #uploader: Uploader;
  readonly #lister: Lister;
  readonly #policy: RetryPolicy;
  readonly #fallback = new FallbackReferrers(this);

  constructor(host: string, options: RegistryClientOptions = {}) {
    this.host = host;
    const logger = options.logger ?? silentLogger;
    this.#endpoints = new Endpoints(host, (hostname) => options.plainHttp ?? isLoopback(hostname));
    const home = { registry: host, base: this.#endpoints.base, plainHttp: options.plainHttp ?? false };
    this.#transport = new Transport(options.timeout ?? 30_000, options.userAgent ?? 'layercache');
    const authorizer = new Authorizer(home, options.credentials ?? dockerCredentials(), this.#transport);
    this.#policy = retryPolicy(options.retry);
    this.#exchanger = new Exchanger(home, this.#transport, authorizer, this.#policy, logger);
    this.#lister = new Lister(this.#exchanger, this.#transport, this.#endpoints);
    this.#uploader = new Uploader(this.#exchanger, this.#policy, this.#endpoints);
  }

  /** What has gone over the network so far. */
  get traffic(): Readonly<Traffic> {
    return this.#transport.traffic;
  }

  /** What the registry last said of its pull limit. Docker Hub does; asking it by HEAD does not count. */
  get rateLimit(): RateLimit | undefined {
    return this.#exchanger.rateLimit;
  }

  async resolve(repository: string, reference: string, options: RequestOptions = {}): Promise<Descriptor> {
    const response = await this.#exchanger.send({
      method: 'HEAD',
      url: this.#endpoints.manifest(repository, reference),
      scopes: [scopeOf(repository, 'pull')],
      headers: { accept: ACCEPTED },
      expect: [200, 405],
      doing: `resolving ${repository}${separator(reference)}${reference}`,
      signal: options.signal,
    });
    discard(response);
    const mediaType = mediaTypeOf(response);
    const digest = isDigest(reference) ? reference : contentDigest(response);
    const size = Number(headerOf(response.headers, 'content-length') ?? NaN);
    if (
      response.status === 200 &&
      mediaType !== undefined &&
      isManifestMediaType(mediaType) &&
      digest !== undefined &&
      Number.isSafeInteger(size)
    ) {
      return { mediaType, digest, size };
    }
    // Not every registry says it all in the answer to a HEAD.
    return (await this.fetchManifest(repository, reference, options)).descriptor;
  }

  async fetchManifest(
    repository: string,
    reference: string,
    options: RequestOptions = {},
  ): Promise<FetchedManifest> {
    const what = `${this.host}/${repository}${separator(reference)}${reference}`;
    const response = await this.#exchanger.send({
      method: 'GET',
      url: this.#endpoints.manifest(repository, reference),
      scopes: [scopeOf(repository, 'pull')],
      headers: { accept: ACCEPTED },
      expect: [200],
      doing: `fetching manifest ${repository}${separator(reference)}${reference}`,
      signal: options.signal,
    });
    const bytes = await this.#transport.readAll(response, MAX_MANIFEST_SIZE, options.signal);
    const mediaType = mediaTypeOf(response);
    if (mediaType === undefined || !/[/+]json$/.test(mediaType)) {
      throw new RegistryError(
        'REGISTRY',
        `${what} is no manifest: the answer has the content type ${mediaType?.slice(0, 100) ?? '(none)'}; is this a registry?`,
        { status: response.status },
      );
    }
    const expected = isDigest(reference) ? reference : contentDigest(response);
    const found = digestOf(bytes, expected === undefined ? 'sha256' : digestAlgorithm(expected));
    if (expected !== undefined && found !== expected) {
      throw new IntegrityError(
        'DIGEST_MISMATCH',
        `${what} should be ${expected}, but its bytes hash to ${found}`,
        {
          expected,
          found,
        },
      );
    }
    return { descriptor: { mediaType, digest: found, size: bytes.length }, bytes };
  }

  async blobSize(
    repository: string,
    digest: Digest,
    options: RequestOptions = {},
  ): Promise<number | undefined> {
    const response = await this.#exchanger.send({
      method: 'HEAD',
      url: this.#endpoints.blob(repository, digest),
      scopes: [scopeOf(repository, 'pull')],
      expect: [200, 404],
      doing: `looking for blob ${digest} in ${repository}`,
      signal: options.signal,
    });
    discard(response);
    if (response.status === 404) return undefined;
    const size = Number(headerOf(response.headers, 'content-length') ?? NaN);
    if (Number.isSafeInteger(size)) return size;
    throw new RegistryError('REGISTRY', `${this.host} has blob ${digest} but does not say how large it is`, {
      status: 200,
    });
  }

  async fetchBlob(repository: string, digest: Digest, options: FetchBlobOptions = {}): Promise<FetchedBlob> {
    const { range, signal } = options;
    const wanted = range?.first ?? 0;
    const open = (first: number, last: number | undefined): Promise<HttpResponse> => {
      const whole = first === 0 && last === undefined;
      return this.#exchanger.send({
        method: 'GET',
        url: this.#endpoints.blob(repository, digest),
        scopes: [scopeOf(repository, 'pull')],
        headers: whole ? {} : { range: `bytes=${first}-${last ?? ''}` },
        expect: whole ? [200] : [200, 206],
        doing: `fetching blob ${digest} of ${repository}`,
        signal,
      });
    };
    const { response, extent } = await openFrom(open, wanted, range?.last);
    const last = extent.length === undefined ? undefined : extent.offset + extent.length - 1;
    const bytes = resumingBody(response, extent, {
      transport: this.#transport,
      policy: this.#policy,
      signal,
      reopen: (offset) => open(offset, last),
    });
    const body = Readable.from(bytes, { objectMode: false });
    // A generator that was never started has no `finally` to run: the connection is freed here.
    body.once('close', () => response.body.destroy());
    return { size: extent.size, offset: extent.offset, body };
  }

  pushBlob(
    repository: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    options: RequestOptions = {},
  ): Promise<void> {
    return this.#uploader.push(repository, descriptor, source, options.signal);
  }

  mountBlob(
    repository: string,
    digest: Digest,
    from: string,
    options: RequestOptions = {},
  ): Promise<boolean> {
    return this.#uploader.mount(repository, digest, from, options.signal);
  }

  async pushManifest(
    repository: string,
    mediaType: string,
    bytes: Uint8Array,
    options: PushManifestOptions = {},
  ): Promise<Descriptor> {
    const digest = digestOf(bytes);
    const reference = options.tag ?? digest;
    if (!MEDIA_TYPE.test(mediaType)) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `manifest ${digest} has the media type ${JSON.stringify(mediaType.slice(0, 100))}, which no header can carry`,
      );
    }
    const response = await this.#exchanger.send({
      method: 'PUT',
      url: this.#endpoints.manifest(repository, reference),
      scopes: [scopeOf(repository, 'pull', 'push')],
      headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
      body: () => [bytes],
      expect: [200, 201, 202],
      doing: `pushing manifest ${repository}${separator(reference)}${reference}`,
      signal: options.signal,
    });
    discard(response);
    const stored = contentDigest(response);
    if (stored !== undefined && stored !== digest) {
      throw new IntegrityError(
        'DIGEST_MISMATCH',
        `${this.host} stored manifest ${digest} as ${stored}: it changed the bytes`,
        {
          expected: digest,
          found: stored,
        },
      );
    }
    const descriptor = { mediaType, digest, size: bytes.length };
    if (headerOf(response.headers, 'oci-subject') === undefined)
      await this.#listReferrer(repository, descriptor, bytes, options);
    return descriptor;
  }

  async tag(repository: string, digest: Digest, tag: string, options: RequestOptions = {}): Promise<void> {
    const { descriptor, bytes } = await this.fetchManifest(repository, digest, options);
    await this.pushManifest(repository, descriptor.mediaType, bytes, { ...options, tag });
  }

  async deleteManifest(repository: string, reference: string, options: RequestOptions = {}): Promise<void> {
    const what = `manifest ${repository}${separator(reference)}${reference}`;
    if (!isDigest(reference)) {
      await this.#delete(this.#endpoints.manifest(repository, reference), repository, what, options);
      return;
    }
    const { bytes } = await this.fetchManifest(repository, reference, options);
    await this.#delete(this.#endpoints.manifest(repository, reference), repository, what, options);
    const { subject } = parseDocument(subjectSchema, bytes, what);
    // Where the registry keeps the list itself, there is no tag to change.
    if (subject !== undefined) await this.#fallback.remove(repository, subject.digest, reference, options);
  }

  async deleteBlob(repository: string, digest: Digest, options: RequestOptions = {}): Promise<void> {
    await this.#delete(
      this.#endpoints.blob(repository, digest),
      repository,
      `blob ${digest} of ${repository}`,
      options,
    );
  }

  async *tags(repository: string, options: ListOptions = {}): AsyncGenerator<string> {
    const url = this.#endpoints.tags(repository);
    for await (const page of this.#lister.pages(
      url,
      [scopeOf(repository, 'pull')],
      `listing the tags of ${repository}`,
      options,
    )) {
      yield* inOrder(parseDocument(tagsSchema, page, `the tags of ${repository}`).tags ?? [], options.after);
    }
  }

  async *repositories(options: ListOptions = {}): AsyncGenerator<string> {
    const url = this.#endpoints.catalog();
    for await (const page of this.#lister.pages(
      url,
      ['registry:catalog:*'],
      'listing the repositories',
      options,
    )) {
      const names = parseDocument(catalogSchema, page, `the repositories of ${this.host}`).repositories ?? [];
      yield* inOrder(names, options.after);
    }
  }

  async *referrers(
    repository: string,
    digest: Digest,
    options: RequestOptions & { readonly artifactType?: string } = {},
  ): AsyncGenerator<Descriptor> {
    const url = this.#endpoints.referrers(repository, digest);
    if (options.artifactType !== undefined) url.searchParams.set('artifactType', options.artifactType);
    // A registry may leave the filter to us.
    const wanted = (each: Descriptor): boolean =>
      options.artifactType === undefined || each.artifactType === options.artifactType;
    const scopes = [scopeOf(repository, 'pull')];
    const doing = `listing the referrers of ${digest}`;
    try {
      for await (const page of this.#lister.pages(url, scopes, doing, options)) {
        yield* parseImageIndex(page, `the referrers of ${digest}`).manifests.filter(wanted);
      }
    } catch (error) {
      // Distribution specification, "Unavailable Referrers API".
      if (!(error instanceof RegistryError) || (error.status !== 404 && error.status !== 405)) throw error;
      const manifests = await this.#fallback.list(repository, digest, options);
      yield* (manifests ?? []).filter(wanted);
    }
  }

  async #delete(url: URL, repository: string, what: string, options: RequestOptions): Promise<void> {
    const response = await this.#exchanger.send({
      method: 'DELETE',
      url,
      scopes: [scopeOf(repository, 'pull', 'push', 'delete')],
      expect: [200, 202, 204, 405],
      doing: `deleting ${what}`,
      signal: options.signal,
    });
    discard(response);
    if (response.status === 405) {
      throw new RegistryError('UNSUPPORTED', `${this.host} deletes nothing: ${what} stays`, { status: 405 });
    }
  }

  /** Distribution specification, "Pushing Manifests with Subject": what a registry without the API needs. */
  async #listReferrer(
    repository: string,
    descriptor: Descriptor,
    bytes: Uint8Array,
    options: RequestOptions,
  ): Promise<void> {
    const manifest = parseDocument(subjectSchema, bytes, `manifest ${descriptor.digest}`);
    if (manifest.subject === undefined) return;
    const referrer = referrerOf(descriptor, manifest);
    await this.#fallback.add(repository, manifest.subject.digest, referrer, options);
  }
}

function separator(reference: string): string {
  return isDigest(reference) ? '@' : ':';
}

function mediaTypeOf(response: HttpResponse): string | undefined {
  return headerOf(response.headers, 'content-type')?.split(';')[0]?.trim();
}

function contentDigest(response: HttpResponse): Digest | undefined {
  const value = headerOf(response.headers, 'docker-content-digest');
  if (value === undefined) return undefined;
  if (isDigest(value)) return value;
  throw new LayercacheError(
    'REGISTRY',
    `a registry announced the digest ${JSON.stringify(value.slice(0, 160))}, which is none`,
  );
}

/**
 * The answer to a GET of a blob, or of the rest of one. A registry that refuses the rest (416), or sends another range
 * than the one asked for, is asked for all of the blob: the caller sees that by the offset, and starts over.
 */
async function openFrom(
  open: (first: number, last: number | undefined) => Promise<HttpResponse>,
  first: number,
  last: number | undefined,
): Promise<{ readonly response: HttpResponse; readonly extent: BodyExtent }> {
  let response: HttpResponse | undefined;
  try {
    response = await open(first, last);
    return { response, extent: bodyExtent(response, first) };
  } catch (error) {
    response?.body.destroy();
    const refused = error instanceof RegistryError && (error.status === 416 || error.status === 206);
    if (!refused || first === 0 || last !== undefined) throw error;
  }
  const whole = await open(0, undefined);
  return { response: whole, extent: bodyExtent(whole, 0) };
}
