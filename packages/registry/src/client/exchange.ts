import { isLayercacheError, type ErrorCode, type Logger } from '@layercache/oci';
import { z } from 'zod';
import { RegistryError, type ReportedError } from '../registry-error.js';
import type { Authorizer, Scope } from './authorizer.js';
import { headerOf } from './header.js';
import type { Home } from './realm.js';
import { rateLimitOf, type RateLimit } from './rate-limit.js';
import { isTransientStatus, pause, retryAfter, type RetryPolicy } from './retry.js';
import { shownUrl, type HttpResponse, type Transport } from './transport.js';

export interface Exchange {
  readonly method: string;
  readonly url: URL;
  readonly scopes: readonly Scope[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** Statuses that are an answer. Any other is an error. */
  readonly expect: readonly number[];
  /** What the errors say was being done: `fetching blob sha256:…`. */
  readonly doing: string;
  readonly signal?: AbortSignal | undefined;
  /** Whether doing it twice is the same as doing it once. Default true. */
  readonly repeatable?: boolean;
}

/** Bytes of an error's body that are read: enough for what registries say. */
const MAX_ERROR_BODY = 64 * 1024;
/** Characters of an error that a message quotes. */
const MAX_QUOTED = 500;
/** Characters of a page that are searched for something to quote. */
const MAX_PAGE = 4096;

const errorBodySchema = z.looseObject({
  errors: z
    .array(
      z.looseObject({ code: z.string(), message: z.string().optional(), detail: z.unknown().optional() }),
    )
    .min(1),
});

/** Requests to one registry: authenticated when it asks, repeated when that may help. */
export class Exchanger {
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  readonly #policy: RetryPolicy;
  readonly #logger: Logger;
  readonly #registry: string;
  readonly #base: URL;
  /** As of the last answer that said something of it. */
  rateLimit: RateLimit | undefined;

  constructor(
    { registry, base }: Pick<Home, 'registry' | 'base'>,
    transport: Transport,
    authorizer: Authorizer,
    policy: RetryPolicy,
    logger: Logger,
  ) {
    this.#registry = registry;
    this.#base = base;
    this.#transport = transport;
    this.#authorizer = authorizer;
    this.#policy = policy;
    this.#logger = logger;
  }

  /**
   * @throws RegistryError `NOT_FOUND` (404), `UNAUTHORIZED` (401, 403), `DIGEST_MISMATCH` and `UNSUPPORTED`
   *   (400, when it says so), `REGISTRY` (any other)
   * @throws LayercacheError `NETWORK`, `ABORTED`
   */
  async send(exchange: Exchange): Promise<HttpResponse> {
    let challenged = false;
    for (let attempt = 1; ; attempt++) {
      let response: HttpResponse;
      try {
        response = await this.#once(exchange);
      } catch (error) {
        const again = isLayercacheError(error, 'NETWORK') && exchange.repeatable !== false;
        if (!again || attempt >= this.#policy.attempts) throw error;
        this.#logger.warn({
          message: 'request repeated',
          doing: exchange.doing,
          attempt,
          error: error.message,
        });
        await pause(this.#policy, attempt, undefined, exchange.signal);
        continue;
      }
      if (exchange.expect.includes(response.status)) return response;
      if (response.status === 401 && (!challenged || response.leftOrigin)) {
        challenged = true;
        discard(response);
        this.#authorizer.accept(response, exchange.scopes);
        attempt -= 1;
        continue;
      }
      const again =
        isTransientStatus(response.status) && (exchange.repeatable !== false || response.status === 429);
      if (!again || attempt >= this.#policy.attempts) throw await this.failure(exchange, response);
      discard(response);
      this.#logger.warn({
        message: 'request repeated',
        doing: exchange.doing,
        attempt,
        status: response.status,
      });
      await pause(
        this.#policy,
        attempt,
        retryAfter(headerOf(response.headers, 'retry-after')),
        exchange.signal,
      );
    }
  }

  async #once(exchange: Exchange): Promise<HttpResponse> {
    const { method, url, scopes, headers, body, signal } = exchange;
    if (url.origin !== this.#base.origin) {
      throw new RegistryError(
        'REGISTRY',
        `${exchange.doing} failed: ${shownUrl(url)} is not at ${this.#registry}: refused`,
      );
    }
    const authorization = await this.#authorizer.authorization(scopes, signal);
    const response = await this.#transport.send({
      method,
      url,
      headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
      ...(body === undefined ? {} : { body: body() }),
      signal,
    });
    if (!response.leftOrigin) this.rateLimit = rateLimitOf(response.headers) ?? this.rateLimit;
    return response;
  }

  /** The error that a response is, in the registry's own words. */
  async failure(exchange: Exchange, response: HttpResponse): Promise<RegistryError> {
    const { status } = response;
    const body = await this.#transport
      .readAll(response, MAX_ERROR_BODY, exchange.signal)
      .catch(() => Buffer.alloc(0));
    const reported = reportedErrors(body);
    const said =
      reported.length > 0
        ? reported
            .map(
              (each) =>
                `${each.code}${each.message === undefined || each.message === '' ? '' : `: ${each.message}`}`,
            )
            .join('; ')
        : shownBody(body);
    const where = `${exchange.doing} at ${this.#registry}`;
    return new RegistryError(
      codeOf(status, reported),
      `${where} failed with status ${status}${said === '' ? '' : `: ${oneLine(said)}`}${hintOf(status, shownUrl(exchange.url))}`,
      { status, reported, retryAfter: retryAfter(headerOf(response.headers, 'retry-after')) },
    );
  }
}

/** Frees the connection of an answer nobody reads. */
export function discard(response: HttpResponse): void {
  response.body.on('error', () => undefined);
  response.body.resume();
}

function codeOf(status: number, reported: readonly ReportedError[]): ErrorCode {
  if (status === 404) return 'NOT_FOUND';
  if (status === 401 || status === 403) return 'UNAUTHORIZED';
  const says = (...codes: string[]): boolean => reported.some(({ code }) => codes.includes(code));
  if (status === 400 && says('DIGEST_INVALID', 'SIZE_INVALID')) return 'DIGEST_MISMATCH';
  if (status === 400 && says('UNSUPPORTED')) return 'UNSUPPORTED';
  return 'REGISTRY';
}

function hintOf(status: number, url: string): string {
  if (status === 401 || status === 403) return '; log in with an account that may do this';
  if (status === 429) return '; it asks for fewer requests: try again later';
  return status >= 500 ? ` (${url})` : '';
}

function reportedErrors(body: Buffer): ReportedError[] {
  try {
    return errorBodySchema.parse(JSON.parse(body.toString('utf8'))).errors;
  } catch {
    return [];
  }
}

/** What came instead of the specification's JSON: often a proxy's page. */
function shownBody(body: Buffer): string {
  const text = body
    .toString('utf8')
    .slice(0, MAX_PAGE)
    .replace(/<[^>]*>/g, ' ');
  return text.replace(/\s+/g, ' ').trim().slice(0, 200);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').slice(0, MAX_QUOTED);
}
