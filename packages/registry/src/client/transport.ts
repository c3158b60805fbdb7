import http from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LayercacheError, abortedError, throwIfAborted } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import { mayRedirect } from './addresses.js';

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
  /** Whether a redirect to another origin is refused. Default: only of methods other than GET and HEAD. */
  readonly staysAtOrigin?: boolean;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Must be read to its end or destroyed, or the connection stays taken. */
  readonly body: http.IncomingMessage;
  /** Where the answer came from, after redirects. */
  readonly url: URL;
  /** Whether a redirect led to another origin. Such an answer does not speak for the one that was asked. */
  readonly leftOrigin: boolean;
}

/** What went over the network. Bytes are those of bodies. */
export interface Traffic {
  requests: number;
  bytesReceived: number;
  bytesSent: number;
}

const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** HTTP as registries need it: streams both ways, redirects by hand, nothing kept waiting for ever. */
export class Transport {
  readonly traffic: Traffic = { requests: 0, bytesReceived: 0, bytesSent: 0 };
  readonly #timeout: number;
  readonly #userAgent: string;
  readonly #http = new http.Agent({ keepAlive: true, scheduling: 'lifo' });
  readonly #https = new https.Agent({ keepAlive: true, scheduling: 'lifo' });

  /** @param timeout milliseconds without a byte in either direction */
  constructor(timeout: number, userAgent: string) {
    this.#timeout = timeout;
    this.#userAgent = userAgent;
  }

  /**
   * Sends a request and follows its redirects. `authorization` goes to the first origin and to no other, and not
   * back to the first one after a redirect by another.
   */
  async send(request: HttpRequest): Promise<HttpResponse> {
    const seen = new Set<string>();
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const staysAtOrigin = request.staysAtOrigin ?? !isRead;
    let { url, method } = request;
    let leftOrigin = false;
    for (let hops = 0; ; hops++) {
      const headers = { ...request.headers };
      if (leftOrigin) Reflect.deleteProperty(headers, 'authorization');
      const response = { ...(await this.#once({ ...request, url, method, headers })), leftOrigin };
      const location = response.headers.location;
      // An upload's Location is where to go on, not a redirect; and a body that was sent cannot be sent again.
      if (!REDIRECTS.has(response.status) || location === undefined || request.body !== undefined)
        return response;
      response.body.resume();
      const next = redirectTarget(url, location);
      if (response.status === 303 && method !== 'HEAD') method = 'GET';
      if (hops >= MAX_REDIRECTS || seen.has(`${method} ${next.href}`)) {
        throw new RegistryError(
          'REGISTRY',
          `${request.method} ${shownUrl(request.url)} is redirected in a circle, last to ${shownUrl(next)}`,
          { status: response.status },
        );
      }
      seen.add(`${method} ${next.href}`);
      if (next.origin !== request.url.origin) {
        if (staysAtOrigin) {
          throw new RegistryError(
            'REGISTRY',
            `${request.method} ${shownUrl(request.url)} is redirected to another host, ${shownUrl(next)}: refused`,
            { status: response.status },
          );
        }
        leftOrigin = true;
      }
      url = next;
    }
  }

  async #once(request: HttpRequest): Promise<Omit<HttpResponse, 'leftOrigin'>> {
    throwIfAborted(request.signal);
    const { url, method, signal, body } = request;
    const secure = url.protocol === 'https:';
    const headers = { 'user-agent': this.#userAgent, ...request.headers };
    this.traffic.requests += 1;
    const outgoing = (secure ? https : http).request(url, {
      method,
      headers,
      agent: secure ? this.#https : this.#http,
      ...(signal === undefined ? {} : { signal }),
    });
    let answer: http.IncomingMessage | undefined;
    outgoing.setTimeout(this.#timeout, () => {
      const waitsForUs =
        answer === undefined
          ? !outgoing.writableEnded && outgoing.writableLength === 0
          : answer.readableLength > 0;
      // A slow reader, or a slow source, is no fault of the registry's.
      if (waitsForUs) outgoing.socket?.setTimeout(this.#timeout);
      else outgoing.destroy(new Error(`no answer in ${this.#timeout / 1000} s`));
    });
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      outgoing.once('response', (incoming) => {
        answer = incoming;
        resolve(incoming);
      });
      outgoing.on('error', reject);
    });
    let sourceFailure: { readonly error: unknown } | undefined;
    const sent =
      body === undefined
        ? Promise.resolve(void outgoing.end())
        : pipeline(
            Readable.from(
              this.#counted(body, (error) => (sourceFailure = { error })),
              { objectMode: false },
            ),
            outgoing,
          );
    sent.catch(() => undefined);
    try {
      const incoming = await answered;
      // A refusal may come while the body is on its way: the rest of it would go nowhere.
      if ((incoming.statusCode ?? 0) < 300) await sent;
      return { status: incoming.statusCode ?? 0, headers: incoming.headers, body: incoming, url };
    } catch (error) {
      outgoing.destroy();
      if (sourceFailure !== undefined) throw sourceFailure.error as Error;
      throw networkError(error, `${method} ${shownUrl(url)}`, signal);
    }
  }

  async *#counted(
    body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    onFailure: (error: unknown) => void,
  ): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of body) {
        this.traffic.bytesSent += chunk.length;
        yield chunk;
      }
    } catch (error) {
      onFailure(error);
      throw error;
    }
  }

  /** The chunks of a body, counted. Fails with `NETWORK` when the connection breaks before its end. */
  async *read(response: HttpResponse, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
        this.traffic.bytesReceived += chunk.length;
        yield chunk;
      }
    } catch (error) {
      throw networkError(error, `reading ${shownUrl(response.url)}`, signal);
    } finally {
      response.body.destroy();
    }
  }

  /**
   * A whole body.
   *
   * @throws RegistryError `REGISTRY` when it is larger than `limit` bytes
   */
  async readAll(response: HttpResponse, limit: number, signal?: AbortSignal): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of this.read(response, signal)) {
      size += chunk.length;
      if (size > limit) {
        throw new RegistryError(
          'REGISTRY',
          `the answer of ${shownUrl(response.url)} is larger than ${limit} bytes`,
          {
            status: response.status,
          },
        );
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}

/** @throws RegistryError `REGISTRY` where a redirect leads to no web address, or from HTTPS to HTTP */
export function redirectTarget(from: URL, location: string): URL {
  let target: URL;
  try {
    target = new URL(location, from);
  } catch (cause) {
    throw new RegistryError(
      'REGISTRY',
      `${shownUrl(from)} redirects to "${location.slice(0, 200)}", which is no URL`,
      { cause },
    );
  }
  if (target.protocol !== 'https:' && (target.protocol !== 'http:' || from.protocol === 'https:')) {
    throw new RegistryError(
      'REGISTRY',
      `${shownUrl(from)} redirects to ${shownUrl(target)}, which is not HTTPS: refused`,
    );
  }
  if (!mayRedirect(from, target)) {
    throw new RegistryError(
      'REGISTRY',
      `${shownUrl(from)} redirects to ${shownUrl(target)}, an address of this machine or of no public host: refused`,
    );
  }
  // Node would send a name and password in the URL as Basic credentials.
  target.username = '';
  target.password = '';
  return target;
}

/** Characters of a URL that a message shows. */
const MAX_SHOWN_URL = 500;

/** A URL in a message. Queries of redirects carry signatures and do not belong there. */
export function shownUrl(url: URL): string {
  // The origin of a scheme that is not of the web is the word "null".
  const origin = url.origin === 'null' ? `${url.protocol}//${url.host}` : url.origin;
  const text = `${origin}${url.pathname}`;
  return text.length > MAX_SHOWN_URL ? `${text.slice(0, MAX_SHOWN_URL)}…` : text;
}

export function networkError(error: unknown, what: string, signal: AbortSignal | undefined): LayercacheError {
  if (error instanceof LayercacheError) return error;
  if (signal?.aborted === true) return abortedError(signal);
  const { message, code } = error as NodeJS.ErrnoException;
  const why = message === '' ? (code ?? 'the connection broke') : message;
  return new LayercacheError('NETWORK', `${what} failed: ${why}`, { cause: error });
}
