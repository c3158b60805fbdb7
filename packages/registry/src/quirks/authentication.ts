import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { RequestHandler } from '../server/registry-handler.js';
import { pathOf, refuse } from './answer.js';

export interface Account {
  readonly username: string;
  readonly password: string;
}

/** Every request needs a name and a password. */
export function basicAuth(account: Account): (handler: RequestHandler) => RequestHandler {
  return (handler) => (request, response) => {
    if (isAccount(request, account)) {
      handler(request, response);
      return;
    }
    request.resume();
    response.setHeader('WWW-Authenticate', 'Basic realm="registry"');
    refuse(response, 401, 'UNAUTHORIZED', 'authentication required');
  };
}

export interface TokenAuth {
  /** Who may push. Without one, everybody gets every token. */
  readonly account?: Account;
  /** Seconds that a token is good for. Default 300. */
  readonly lifetime?: number;
}

interface Token {
  readonly scopes: ReadonlySet<string>;
  readonly expires: number;
}

const SERVICE = 'registry';

/**
 * Every request needs a token that names just the repository and the action (distribution, "Token Authentication
 * Specification"). The registry's own `/token` hands them out, to anonymous clients for pulling only.
 */
export function tokenAuth({ account, lifetime = 300 }: TokenAuth = {}): (
  handler: RequestHandler,
) => RequestHandler {
  const tokens = new Map<string, Token>();

  const grant = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url ?? '/', 'http://registry');
    const isKnown = account === undefined || isAccount(request, account);
    if (!isKnown && request.headers.authorization !== undefined) {
      refuse(response, 401, 'UNAUTHORIZED', 'wrong name or password');
      return;
    }
    const wanted = url.searchParams.getAll('scope').flatMap((scope) => scope.split(' ').flatMap(actionsOf));
    const scopes = wanted.filter((scope) => isKnown || scope.endsWith(':pull'));
    const token = randomUUID();
    tokens.set(token, { scopes: new Set(scopes), expires: Date.now() + lifetime * 1000 });
    const body = Buffer.from(JSON.stringify({ token, expires_in: lifetime }));
    response.setHeader('Content-Type', 'application/json');
    response.setHeader('Content-Length', body.length);
    response.writeHead(200);
    response.end(body);
  };

  return (handler) => (request, response) => {
    if (pathOf(request.url) === '/token') {
      request.resume();
      grant(request, response);
      return;
    }
    const needed = neededScopes(request);
    const token = tokens.get(/^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '');
    const isValid = token !== undefined && token.expires > Date.now();
    if (isValid && needed.flatMap(actionsOf).every((scope) => token.scopes.has(scope))) {
      handler(request, response);
      return;
    }
    request.resume();
    const scope = needed.length === 0 ? '' : `,scope="${needed.join(' ')}"`;
    const error = isValid ? ',error="insufficient_scope"' : '';
    const realm = `http://${request.headers.host ?? ''}/token`;
    response.setHeader('WWW-Authenticate', `Bearer realm="${realm}",service="${SERVICE}"${scope}${error}`);
    refuse(response, 401, 'UNAUTHORIZED', 'authentication required');
  };
}

function isAccount(request: IncomingMessage, { username, password }: Account): boolean {
  const expected = Buffer.from(`${username}:${password}`).toString('base64');
  return request.headers.authorization === `Basic ${expected}`;
}

/** `repository:team/app:pull,push` for what a request does; a mount reads the other repository, too. */
function neededScopes(request: IncomingMessage): string[] {
  const url = new URL(request.url ?? '/', 'http://registry');
  if (url.pathname === '/v2/_catalog') return ['registry:catalog:*'];
  const name = /^\/v2\/(.+)\/(?:blobs|manifests|tags|referrers)\//
    .exec(url.pathname)?.[1]
    ?.replace(/\/blobs$/, '');
  if (name === undefined) return [];
  const from = url.searchParams.get('from');
  const actions =
    request.method === 'DELETE'
      ? 'delete'
      : request.method === 'GET' || request.method === 'HEAD'
        ? 'pull'
        : 'pull,push';
  return [`repository:${name}:${actions}`, ...(from === null ? [] : [`repository:${from}:pull`])];
}

function actionsOf(scope: string): string[] {
  const colon = scope.lastIndexOf(':');
  return scope
    .slice(colon + 1)
    .split(',')
    .map((action) => `${scope.slice(0, colon)}:${action}`);
}
