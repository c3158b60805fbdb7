import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from '@layercache/oci';
import type { Registry } from '../registry.js';
import type { UploadSessions } from './upload-sessions.js';

/** What every endpoint works with. */
export interface ServerContext {
  readonly registry: Registry;
  readonly uploads: UploadSessions;
  readonly logger: Logger;
}

/** One request and its answer. */
export interface Exchange extends ServerContext {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** Fires when the client is gone. */
  readonly signal: AbortSignal;
}

/** A body that can be left unread: its connection still has to carry the answer. */
export function bodyOf(request: IncomingMessage): AsyncIterable<Uint8Array> {
  return request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}

export type Headers = Readonly<Record<string, string | number | readonly string[]>>;

/** Sets the headers one by one and the status last, so that who wraps the handler can change them in `writeHead`. */
export function writeHead(response: ServerResponse, status: number, headers: Headers = {}): void {
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.writeHead(status);
}

/** An answer without a body. */
export function sendEmpty(response: ServerResponse, status: number, headers: Headers = {}): void {
  // 204 has no length (RFC 9110, section 8.6).
  writeHead(response, status, status === 204 ? headers : { 'Content-Length': 0, ...headers });
  response.end();
}

export function sendBytes(
  response: ServerResponse,
  status: number,
  bytes: Uint8Array,
  headers: Headers = {},
): void {
  writeHead(response, status, { ...headers, 'Content-Length': bytes.length });
  response.end(bytes);
}

export function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Headers = {},
): void {
  sendBytes(response, status, Buffer.from(`${JSON.stringify(value)}\n`), {
    'Content-Type': 'application/json',
    ...headers,
  });
}
