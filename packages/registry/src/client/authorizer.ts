import { LayercacheError, SingleFlight, isLayercacheError, parseDocument } from '@layercache/oci';
import { z } from 'zod';
import { RegistryError } from '../registry-error.js';
import { parseChallenges, type Challenge } from './challenge.js';
import type { CredentialStore, Credentials } from './credentials.js';
import { parseRealm, type Home } from './realm.js';
import { shownUrl, type HttpResponse, type Transport } from './transport.js';

/** Distribution's token answer; `token` and `access_token` mean the same. */
const tokenSchema = z.looseObject({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().optional(),
});

/** Bytes of a token service's answer. */
const MAX_TOKEN_ANSWER = 1024 * 1024;
/** Seconds that a token lives when its service does not say (distribution's token specification). */
const DEFAULT_LIFETIME = 60;

interface Token {
  readonly value: string;
  /** As of `performance.now()`, with a margin so that it does not expire on its way. */
  readonly expires: number;
}

/** Scopes of one challenge. More would be somebody filling our memory. */
const MAX_SCOPES = 16;
/** Tokens, and scopes of challenges, that are remembered at a time. */
const MAX_REMEMBERED = 1024;
/** A token as a header can carry it (RFC 6750, section 2.1, and what services give beyond that). */
const TOKEN = /^[\x21-\x7e]{1,65536}$/;

/** `repository:library/alpine:pull`. */
export type Scope = string;

export function scopeOf(repository: string, ...actions: readonly ('pull' | 'push' | 'delete')[]): Scope {
  return `repository:${repository}:${actions.join(',')}`;
}

/**
 * Answers the challenges of one registry, and remembers the tokens it got for as long as they hold. Credentials go
 * to that registry, and to the token service that its first challenge named.
 */
export class Authorizer {
  readonly #home: Home;
  readonly #credentials: CredentialStore;
  readonly #transport: Transport;
  readonly #tokens = new Map<string, Token>();
  readonly #pending = new SingleFlight<Token>();
  /** Scopes that a registry asked for beyond those of the specification, by what they were asked for. */
  readonly #wanted = new Map<string, readonly Scope[]>();
  #challenge: Challenge | undefined;
  /** Origins of the token services that are believed: the registry itself, and what its first challenge named. */
  #tokenOrigins: ReadonlySet<string> | undefined;

  constructor(home: Home, credentials: CredentialStore, transport: Transport) {
    this.#home = home;
    this.#credentials = credentials;
    this.#transport = transport;
  }

  /** The `Authorization` for a request, as far as the registry has asked for one before. */
  async authorization(scopes: readonly Scope[], signal?: AbortSignal): Promise<string | undefined> {
    if (this.#challenge === undefined) return undefined;
    return this.#answer(this.#challenge, scopes, signal);
  }

  /**
   * Takes up the challenge of a 401.
   *
   * @throws LayercacheError `UNAUTHORIZED` when there is none that can be answered, or when it is not the registry's own
   */
  accept(response: HttpResponse, scopes: readonly Scope[]): void {
    const { registry, base } = this.#home;
    if (response.leftOrigin || response.url.origin !== base.origin) {
      throw new RegistryError(
        'UNAUTHORIZED',
        `${shownUrl(response.url)}, to which ${registry} redirected, wants credentials: it gets none`,
        { status: response.status },
      );
    }
    const header = response.headers['www-authenticate'];
    const challenges = parseChallenges(header ?? '');
    const challenge =
      challenges.find((each) => each.scheme === 'bearer' && each.parameters.has('realm')) ??
      challenges.find((each) => each.scheme === 'basic');
    if (challenge === undefined) {
      throw new LayercacheError(
        'UNAUTHORIZED',
        header === undefined
          ? `${registry} wants credentials but does not say which kind: it sent no WWW-Authenticate`
          : `${registry} wants to be authenticated to in a way that is not supported: ${header.slice(0, 200)}`,
      );
    }
    this.#believe(challenge);
    this.#challenge = challenge;
    const key = tokenKey(challenge, scopes);
    // What was shown for these scopes was refused.
    this.#tokens.delete(key);
    const wanted = challenge.parameters.get('scope') ?? '';
    remember(this.#wanted, key, wanted === '' ? [] : wanted.split(' ').slice(0, MAX_SCOPES));
  }

  /** @throws LayercacheError `UNAUTHORIZED` for a token service that the registry did not name from the start */
  #believe(challenge: Challenge): void {
    const { registry, base } = this.#home;
    const realm = challenge.scheme === 'bearer' ? this.#realm(challenge) : undefined;
    this.#tokenOrigins ??= new Set([base.origin, realm?.origin ?? base.origin]);
    if (realm !== undefined && !this.#tokenOrigins.has(realm.origin)) {
      throw new LayercacheError(
        'UNAUTHORIZED',
        `${registry} sends to ${shownUrl(realm)} for a token, but its first answer named another token service: refused`,
      );
    }
  }

  async #answer(
    challenge: Challenge,
    scopes: readonly Scope[],
    signal: AbortSignal | undefined,
  ): Promise<string> {
    if (challenge.scheme === 'basic') {
      const { registry } = this.#home;
      const credentials = await this.#credentials.get(registry, { signal });
      if (credentials?.kind !== 'password') {
        throw new LayercacheError(
          'UNAUTHORIZED',
          `${registry} wants a user name and a password: log in with docker login ${registry}`,
        );
      }
      return basic(credentials);
    }
    return `Bearer ${(await this.#token(challenge, scopes, signal)).value}`;
  }

  async #token(
    challenge: Challenge,
    scopes: readonly Scope[],
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const key = tokenKey(challenge, scopes);
    const kept = this.#tokens.get(key);
    if (kept !== undefined && kept.expires > performance.now()) return kept;
    const wanted = [...new Set([...scopes, ...(this.#wanted.get(key) ?? [])])];
    return this.#pending.run(key, signal, async (shared) => {
      const token = await this.#fetchToken(challenge, wanted, shared);
      remember(this.#tokens, key, token);
      return token;
    });
  }

  async #fetchToken(
    challenge: Challenge,
    scopes: readonly Scope[],
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const realm = this.#realm(challenge);
    const service = challenge.parameters.get('service');
    const credentials = await this.#credentials.get(this.#home.registry, { signal });
    const asked = performance.now();
    const response =
      credentials?.kind === 'identity'
        ? await this.#exchange(realm, service, scopes, credentials.token, signal)
        : await this.#ask(realm, service, scopes, credentials, signal);
    const body = await this.#transport.readAll(response, MAX_TOKEN_ANSWER, signal);
    if (response.status !== 200) {
      const known =
        credentials === undefined
          ? `log in with docker login ${this.#home.registry}`
          : 'are the credentials still right?';
      throw new RegistryError(
        'UNAUTHORIZED',
        `${shownUrl(realm)} gives no token for ${scopes.join(' ').slice(0, 300)}: status ${response.status}; ${known}`,
        {
          status: response.status,
        },
      );
    }
    const { token, seconds } = tokenIn(body, realm);
    return { value: token, expires: asked + Math.max(seconds, 1) * 1000 * 0.8 };
  }

  #realm(challenge: Challenge): URL {
    return parseRealm(challenge.parameters.get('realm') ?? '', this.#home);
  }

  #ask(
    realm: URL,
    service: string | undefined,
    scopes: readonly Scope[],
    credentials: Extract<Credentials, { kind: 'password' }> | undefined,
    signal: AbortSignal | undefined,
  ): Promise<HttpResponse> {
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set('service', service);
    for (const scope of scopes) url.searchParams.append('scope', scope);
    if (credentials !== undefined) url.searchParams.set('account', credentials.username);
    return this.#transport.send({
      method: 'GET',
      url,
      headers: {
        accept: 'application/json',
        ...(credentials === undefined ? {} : { authorization: basic(credentials) }),
      },
      staysAtOrigin: true,
      signal,
    });
  }

  /** OAuth2, RFC 6749 section 6, as distribution's token services take it. */
  #exchange(
    realm: URL,
    service: string | undefined,
    scopes: readonly Scope[],
    refreshToken: string,
    signal: AbortSignal | undefined,
  ): Promise<HttpResponse> {
    const form = Buffer.from(
      new URLSearchParams({
        grant_type: 'refresh_token',
        client_id: 'layercache',
        ...(service === undefined ? {} : { service }),
        scope: scopes.join(' '),
        refresh_token: refreshToken,
      }).toString(),
    );
    return this.#transport.send({
      method: 'POST',
      url: realm,
      headers: { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(form.length) },
      body: [form],
      staysAtOrigin: true,
      signal,
    });
  }
}

/**
 * Reads the answer of a token service. No error quotes it: it may be a token.
 *
 * @throws RegistryError `UNAUTHORIZED`
 */
function tokenIn(body: Uint8Array, realm: URL): { readonly token: string; readonly seconds: number } {
  const refusal = (why: string): RegistryError =>
    new RegistryError('UNAUTHORIZED', `${shownUrl(realm)} answered ${why}`, { status: 200 });
  let answer: z.infer<typeof tokenSchema>;
  try {
    answer = parseDocument(tokenSchema, body, 'the token');
  } catch (error) {
    if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
    throw refusal('with something that is not the JSON of a token');
  }
  const token = answer.token ?? answer.access_token ?? '';
  if (token === '') throw refusal('without a token');
  if (!TOKEN.test(token)) throw refusal('with a token that no header can carry');
  return { token, seconds: answer.expires_in ?? DEFAULT_LIFETIME };
}

/** Keeps a map small: its oldest value makes way for a new one. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  for (const oldest of map.keys()) {
    if (map.size < MAX_REMEMBERED) break;
    map.delete(oldest);
  }
  map.set(key, value);
}

function tokenKey(challenge: Challenge, scopes: readonly Scope[]): string {
  const { parameters } = challenge;
  return JSON.stringify([parameters.get('realm'), parameters.get('service'), [...scopes].sort()]);
}

function basic(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}
