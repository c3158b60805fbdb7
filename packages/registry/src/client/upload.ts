import { IntegrityError, isLayercacheError, type Descriptor, type Digest } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import type { ByteSource } from '../registry.js';
import { scopeOf, type Scope } from './authorizer.js';
import type { Endpoints } from './endpoints.js';
import { discard, type Exchanger } from './exchange.js';
import { headerOf } from './header.js';
import { pause, type RetryPolicy } from './retry.js';
import type { HttpResponse } from './transport.js';

/** Bytes. Below GHCR's limit of 4 MiB for a request, with room for its headers. */
const CHUNK_SIZE = 4 * 1024 * 1024 - 64 * 1024;
/** Bytes. A chunk is kept in memory; no registry asks for more than a few MiB. */
const MAX_CHUNK_SIZE = 64 * 1024 * 1024;

/**
 * Sends blobs to one registry: in one request as long as it takes that, else in chunks. What a registry was
 * found to need is remembered for the next blob.
 */
export class Uploader {
  readonly #exchanger: Exchanger;
  readonly #policy: RetryPolicy;
  readonly #endpoints: Endpoints;
  /** Whether this registry has refused a blob in one request. */
  #chunked = false;

  constructor(exchanger: Exchanger, policy: RetryPolicy, endpoints: Endpoints) {
    this.#exchanger = exchanger;
    this.#policy = policy;
    this.#endpoints = endpoints;
  }

  async push(
    repository: string,
    descriptor: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    // A small blob is no larger than a chunk would be.
    let whole = !this.#chunked || descriptor.size <= CHUNK_SIZE;
    for (let attempt = 1; ; attempt++) {
      try {
        if (whole) await this.#pushWhole(repository, descriptor, source, signal);
        else await this.#pushChunks(repository, descriptor, source, signal);
        return;
      } catch (error) {
        if (whole && error instanceof RegistryError && error.status === 413 && descriptor.size > CHUNK_SIZE) {
          this.#chunked = true;
          whole = false;
          continue;
        }
        if (!isWorthRepeating(error) || attempt >= this.#policy.attempts) throw error;
        // A proxy with a limit may just close the connection on a large body. So may a bad line: both are
        // tried, and nothing is concluded for the next blob.
        if (isLayercacheError(error, 'NETWORK') && descriptor.size > CHUNK_SIZE) whole = !whole;
        await pause(this.#policy, attempt, undefined, signal);
      }
    }
  }

  /** @returns whether the blob is there now without having been sent */
  async mount(
    repository: string,
    digest: Digest,
    from: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const url = this.#endpoints.mount(repository, digest, from);
    const scopes = [scopeOf(repository, 'pull', 'push'), scopeOf(from, 'pull')];
    const doing = `mounting blob ${digest} from ${from}`;
    let response: HttpResponse;
    try {
      response = await this.#exchanger.send({
        method: 'POST',
        url,
        scopes,
        headers: { 'content-length': '0' },
        expect: [201, 202],
        doing,
        signal,
      });
    } catch (error) {
      // "Not from there" is an answer, not a failure: the blob can still be sent.
      if (isLayercacheError(error, 'UNAUTHORIZED', 'NOT_FOUND')) return false;
      if (error instanceof RegistryError && (error.status === 400 || error.status === 405)) return false;
      throw error;
    }
    discard(response);
    if (response.status === 201) return true;
    await this.#cancel(this.#endpoints.afterLocation(response, doing), scopes, signal);
    return false;
  }

  /** Distribution specification, "POST then PUT". */
  async #pushWhole(
    repository: string,
    { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { location, scopes, doing } = await this.#start(repository, digest, signal);
    location.searchParams.set('digest', digest);
    const response = await this.#exchanger.send({
      method: 'PUT',
      url: location,
      scopes,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
      body: () => exactly(source(), size, digest),
      expect: [201, 202, 204],
      doing,
      signal,
      repeatable: false,
    });
    discard(response);
  }

  /** Distribution specification, "Pushing a blob in chunks". */
  async #pushChunks(
    repository: string,
    { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
    source: ByteSource,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { location, scopes, doing, minimum } = await this.#start(repository, digest, signal);
    let url = location;
    let offset = 0;
    for await (const chunk of chunks(exactly(source(), size, digest), Math.max(CHUNK_SIZE, minimum))) {
      const response = await this.#exchanger.send({
        method: 'PATCH',
        url,
        scopes,
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(chunk.length),
          'content-range': `${offset}-${offset + chunk.length - 1}`,
        },
        body: () => [chunk],
        // 202 says the specification; some say 201 or 204.
        expect: [201, 202, 204],
        doing,
        signal,
        repeatable: false,
      });
      discard(response);
      offset += chunk.length;
      url = this.#endpoints.afterLocation(response, doing);
    }
    url.searchParams.set('digest', digest);
    const response = await this.#exchanger.send({
      method: 'PUT',
      url,
      scopes,
      headers: { 'content-length': '0' },
      expect: [201, 202, 204],
      doing,
      signal,
      repeatable: false,
    });
    discard(response);
  }

  async #start(
    repository: string,
    digest: Digest,
    signal: AbortSignal | undefined,
  ): Promise<{ location: URL; scopes: readonly Scope[]; doing: string; minimum: number }> {
    const scopes = [scopeOf(repository, 'pull', 'push')];
    const doing = `pushing blob ${digest} to ${repository}`;
    const response = await this.#exchanger.send({
      method: 'POST',
      url: this.#endpoints.uploads(repository),
      scopes,
      headers: { 'content-length': '0' },
      expect: [202],
      doing,
      signal,
    });
    discard(response);
    const minimum = Number(headerOf(response.headers, 'oci-chunk-min-length') ?? 0);
    if (minimum > MAX_CHUNK_SIZE) {
      throw new RegistryError(
        'REGISTRY',
        `${doing} failed: the registry wants chunks of ${minimum} bytes, more than ${MAX_CHUNK_SIZE}`,
        { status: response.status },
      );
    }
    const known = Number.isSafeInteger(minimum) ? minimum : 0;
    return { location: this.#endpoints.afterLocation(response, doing), scopes, doing, minimum: known };
  }

  /** An upload that was begun in place of a mount takes room until it expires. */
  async #cancel(url: URL, scopes: readonly Scope[], signal: AbortSignal | undefined): Promise<void> {
    try {
      const response = await this.#exchanger.send({
        method: 'DELETE',
        url,
        scopes,
        expect: [202, 204],
        doing: 'cancelling an upload',
        signal,
      });
      discard(response);
    } catch (error) {
      if (!isLayercacheError(error, 'REGISTRY', 'NOT_FOUND', 'UNAUTHORIZED')) throw error;
    }
  }
}

function isWorthRepeating(error: unknown): boolean {
  if (isLayercacheError(error, 'NETWORK')) return true;
  if (!(error instanceof RegistryError) || error.status === undefined) return false;
  // The registry lost the session, or some of its bytes: a new one may hold.
  const lost = error.status === 416 || error.reported.some(({ code }) => code === 'BLOB_UPLOAD_UNKNOWN');
  return lost || error.status >= 500 || error.status === 429;
}

/** Fails when a source gives other than the announced number of bytes: `Content-Length` has been sent by then. */
async function* exactly(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  size: number,
  digest: Digest,
): AsyncGenerator<Uint8Array> {
  let sent = 0;
  for await (const chunk of source) {
    sent += chunk.length;
    if (sent > size) break;
    yield chunk;
  }
  if (sent !== size) {
    throw new IntegrityError(
      'DIGEST_MISMATCH',
      `blob ${digest} was to have ${size} bytes, but its source gave ${sent > size ? 'more' : sent}`,
      { expected: size, found: sent },
    );
  }
}

async function* chunks(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Buffer> {
  let parts: Uint8Array[] = [];
  let length = 0;
  for await (const bytes of source) {
    let rest = bytes;
    while (length + rest.length >= size) {
      parts.push(rest.subarray(0, size - length));
      rest = rest.subarray(size - length);
      yield Buffer.concat(parts);
      parts = [];
      length = 0;
    }
    if (rest.length > 0) parts.push(rest);
    length += rest.length;
  }
  if (length > 0) yield Buffer.concat(parts);
}
