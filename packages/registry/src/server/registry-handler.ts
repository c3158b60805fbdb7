import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorFields, type Logger } from '@layercache/oci';
import { isReadOnly } from '../read-only.js';
import { deleteBlob, getBlob } from './blob-endpoint.js';
import { errorAnswer, type ErrorAnswer } from './error-answer.js';
import { sendBytes, sendEmpty, sendJson, type Exchange, type ServerContext } from './exchange.js';
import { listReferrers, listRepositories, listTags } from './list-endpoint.js';
import { parseRequestTarget } from './request-target.js';
import { deleteManifest, getManifest, putManifest } from './manifest-endpoint.js';
import { invalid, parseRoute, type Route, type RouteKind } from './route.js';
import { deleteUpload, getUpload, patchUpload, postUpload, putUpload } from './upload-endpoint.js';

/** Answers one request of node:http. */
export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Bytes of a refused body that are let pass by. A client that sends more is cut off. */
const MOST_LET_PASS = 64 * 1024 * 1024;

type Methods = Readonly<Record<string, (exchange: Exchange) => Promise<void> | void>>;

/** The endpoints of the distribution specification, by what the path names and the method. */
function methodsOf(route: Route): Methods {
  switch (route.kind) {
    case 'version':
      return { GET: sendVersion, HEAD: sendVersion };
    case 'catalog':
      return { GET: listRepositories };
    case 'blob':
      return {
        GET: (exchange) => getBlob(exchange, route),
        HEAD: (exchange) => getBlob(exchange, route),
        DELETE: (exchange) => deleteBlob(exchange, route),
      };
    case 'uploads':
      return { POST: (exchange) => postUpload(exchange, route) };
    case 'upload':
      return {
        GET: (exchange) => {
          getUpload(exchange, route);
        },
        PATCH: (exchange) => patchUpload(exchange, route),
        PUT: (exchange) => putUpload(exchange, route),
        DELETE: (exchange) => deleteUpload(exchange, route),
      };
    case 'manifest':
      return {
        GET: (exchange) => getManifest(exchange, route),
        HEAD: (exchange) => getManifest(exchange, route),
        PUT: (exchange) => putManifest(exchange, route),
        DELETE: (exchange) => deleteManifest(exchange, route),
      };
    case 'tags':
      return { GET: (exchange) => listTags(exchange, route) };
    case 'referrers':
      return { GET: (exchange) => listReferrers(exchange, route) };
  }
}

/** The endpoints of the distribution specification over any registry. Errors become answers; none escapes. */
export function registryHandler(context: ServerContext): RequestHandler {
  return (request, response) => {
    answer(context, request, response).catch((error: unknown) => {
      context.logger.error({ message: 'an answer could not be made', ...errorFields(error) });
      response.destroy();
    });
  };
}

/** Lets only those requests through that `check` does not throw at. It answers the others before anything else. */
export function guarded(
  handler: RequestHandler,
  check: (request: IncomingMessage) => void,
  logger: Logger,
): RequestHandler {
  return (request, response) => {
    try {
      check(request);
    } catch (error) {
      fail({ logger }, request, response, 'version', error);
      letPass(request);
      return;
    }
    handler(request, response);
  };
}

async function answer(
  context: ServerContext,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => {
    gone.abort();
  });
  response.setHeader('Docker-Distribution-Api-Version', 'registry/2.0');
  let kind: RouteKind = 'version';
  try {
    const { path, query } = parseRequestTarget(request.url ?? '/');
    if (!/^(100-continue)?$/i.test(request.headers.expect ?? '')) {
      throw invalid('UNSUPPORTED', 'nothing but 100-continue can be expected', 417);
    }
    const route = parseRoute(path);
    if (route === undefined) throw invalid('NAME_UNKNOWN', `${path.slice(0, 300)} is no endpoint`, 404);
    kind = route.kind;
    const exchange: Exchange = {
      ...context,
      request,
      response,
      query,
      signal: gone.signal,
    };
    await dispatch(exchange, route);
  } catch (error) {
    fail(context, request, response, kind, error);
  } finally {
    letPass(request);
  }
}

/** The unread rest of a request must pass by before the client reads the answer, and before the next request. */
function letPass(request: IncomingMessage): void {
  if (request.complete) return;
  let passed = 0;
  request.on('data', (chunk: Uint8Array) => {
    passed += chunk.length;
    if (passed > MOST_LET_PASS) request.socket.destroy();
  });
  request.resume();
}

async function dispatch(exchange: Exchange, route: Route): Promise<void> {
  const methods = methodsOf(route);
  const method = exchange.request.method ?? 'GET';
  if (isReadOnly(exchange.registry) && method !== 'GET' && method !== 'HEAD') {
    exchange.response.setHeader('Allow', 'GET, HEAD');
    throw invalid('UNSUPPORTED', 'this registry is read-only', 405);
  }
  const endpoint = Object.hasOwn(methods, method) ? methods[method] : undefined;
  if (endpoint === undefined) {
    exchange.response.setHeader('Allow', Object.keys(methods).join(', '));
    throw invalid('UNSUPPORTED', `${method} is not supported here`, 405);
  }
  await endpoint(exchange);
}

function sendVersion({ response }: Exchange): void {
  sendJson(response, 200, {});
}

function fail(
  { logger }: Pick<ServerContext, 'logger'>,
  request: IncomingMessage,
  response: ServerResponse,
  kind: RouteKind,
  error: unknown,
): void {
  const what = { method: request.method, url: request.url, ...errorFields(error) };
  if (response.destroyed) {
    logger.debug({ message: 'the client left before its answer was complete', ...what });
    return;
  }
  if (response.headersSent) {
    // Too late for a status. A connection that breaks tells the client that it does not have everything.
    logger.error({ message: 'an answer broke off', ...what });
    response.destroy();
    return;
  }
  const writing = request.method === 'PUT' || request.method === 'POST' || request.method === 'PATCH';
  const failure = errorAnswer(error, kind, writing);
  if (failure.status >= 500) logger.error({ message: 'a request failed', ...what });
  else logger.debug({ message: 'a request was refused', status: failure.status, ...what });
  sendFailure(request, response, failure);
}

function sendFailure(
  request: IncomingMessage,
  response: ServerResponse,
  { status, errors, retryAfter }: ErrorAnswer,
): void {
  if (retryAfter !== undefined) response.setHeader('Retry-After', retryAfter);
  if (request.method === 'HEAD') sendEmpty(response, status);
  else
    sendBytes(response, status, Buffer.from(JSON.stringify({ errors })), {
      'Content-Type': 'application/json',
    });
}
