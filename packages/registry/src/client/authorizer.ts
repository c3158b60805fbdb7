import { LayercacheError, SingleFlight, parseDocument } from '@layercache/oci';
import { z } from 'zod';
import { RegistryError } from '../registry-error.js';
import { parseChallenges, type Challenge } from './challenge.js';
import type { CredentialStore, Credentials } from './credentials.js';
import { isLoopback, shownUrl, type HttpResponse, type Transport } from './transport.js';

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

/** `repository:library/alpine:pull`. */
export type Scope = string;

export function scopeOf(repository: string, ...actions: readonly ('pull' | 'push' | 'delete')[]): Scope {
  return `repository:${repository}:${actions.join(',')}`;
}

/** Answers the challenges of one registry, and remembers the tokens it got for as long as they hold. */
export class Authorizer {
  readonly #registry: string;
  readonly #credentials: CredentialStore;
  readonly #transport: Transport;
  readonly #plainHttp: boolean;
  readonly #tokens = new Map<string, Token>();
  readonly #pending = new SingleFlight<Token>();
  /** Scopes that a registry asked for beyond those of the specification, by what they were asked for. */
  readonly #wanted = new Map<string, readonly Scope[]>();
  #challenge: Challenge | undefined;

  constructor(registry: string, credentials: CredentialStore, transport: Transport, plainHttp: boolean) {
    this.#registry = registry;
    this.#credentials = credentials;
    this.#transport = transport;
    this.#plainHttp = plainHttp;
  }

  /** The `Authorization` for a request, as far as the registry has asked for one before. */
  async authorization(scopes: readonly Scope[], signal?: AbortSignal): Promise<string | undefined> {
    if (this.#challenge === undefined) return undefined;
    return this.#answer(this.#challenge, scopes, signal);
  }

  /**
   * Takes up the challenge of a 401.
   *
   * @throws LayercacheError `UNAUTHORIZED` when there is none that can be answered
   */
  accept(response: HttpResponse, scopes: readonly Scope[]): void {
    const header = response.headers['www-authenticate'];
    const challenges = parseChallenges(header ?? '');
    const challenge =
      challenges.find((each) => each.scheme === 'bearer' && each.parameters.has('realm')) ??
      challenges.find((each) => each.scheme === 'basic');
    if (challenge === undefined) {
      throw new LayercacheError(
        'UNAUTHORIZED',
        header === undefined
          ? `${this.#registry} wants credentials but does not say which kind: it sent no WWW-Authenticate`
          : `${this.#registry} wants to be authenticated to in a way that is not supported: ${header.slice(0, 200)}`,
      );
    }
    this.#challenge = challenge;
    const key = tokenKey(challenge, scopes);
    // What was shown for these scopes was refused.
    this.#tokens.delete(key);
    const wanted = challenge.parameters.get('scope') ?? '';
    this.#wanted.set(key, wanted === '' ? [] : wanted.split(' ').slice(0, MAX_SCOPES));
  }

  async #answer(
    challenge: Challenge,
    scopes: readonly Scope[],
    signal: AbortSignal | undefined,
  ): Promise<string> {
    if (challenge.scheme === 'basic') {
      const credentials = await this.#credentials.get(this.#registry);
      if (credentials?.kind !== 'password') {
        throw new LayercacheError(
          'UNAUTHORIZED',
          `${this.#registry} wants a user name and a password: log in with docker login ${this.#registry}`,
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
      this.#tokens.set(key, token);
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
    const credentials = await this.#credentials.get(this.#registry);
    const asked = performance.now();
    const response =
      credentials?.kind === 'identity'
        ? await this.#exchange(realm, service, scopes, credentials.token, signal)
        : await this.#ask(realm, service, scopes, credentials, signal);
    const body = await this.#transport.readAll(response, MAX_TOKEN_ANSWER, signal);
    if (response.status !== 200) {
      const known =
        credentials === undefined
          ? `log in with docker login ${this.#registry}`
          : 'are the credentials still right?';
      throw new RegistryError(
        'UNAUTHORIZED',
        `${shownUrl(realm)} gives no token for ${scopes.join(' ')}: status ${response.status}; ${known}`,
        {
          status: response.status,
        },
      );
    }
    const answer = parseDocument(tokenSchema, body, `the token of ${shownUrl(realm)}`);
    const value = answer.token ?? answer.access_token;
    if (value === undefined || value === '') {
      throw new RegistryError('UNAUTHORIZED', `${shownUrl(realm)} answered without a token`, { status: 200 });
    }
    const lifetime = Math.max(answer.expires_in ?? DEFAULT_LIFETIME, 1);
    return { value, expires: asked + lifetime * 1000 * 0.8 };
  }

  /** Credentials go to the realm: over plain HTTP only where the registry itself is reached so. */
  #realm(challenge: Challenge): URL {
    const text = challenge.parameters.get('realm') ?? '';
    let realm: URL | undefined;
    try {
      realm = new URL(text);
    } catch {
      realm = undefined;
    }
    const plain = realm?.protocol === 'http:' && (this.#plainHttp || isLoopback(realm.hostname));
    if (realm === undefined || (realm.protocol !== 'https:' && !plain)) {
      throw new LayercacheError(
        'UNAUTHORIZED',
        `${this.#registry} sends to "${text.slice(0, 200)}" for a token, which is not an HTTPS address: refused`,
      );
    }
    return realm;
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
      signal,
    });
  }
}

function tokenKey(challenge: Challenge, scopes: readonly Scope[]): string {
  const { parameters } = challenge;
  return JSON.stringify([parameters.get('realm'), parameters.get('service'), [...scopes].sort()]);
}

function basic(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}
