import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

/** Statuses for what node:http's parser refuses. Anything else is 400. */
const STATUSES: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/**
 * Answers bytes that are not an HTTP request, and hangs up.
 *
 * @param latest the answer to the last request of this connection
 */
export function refuseBytes(
  error: NodeJS.ErrnoException,
  socket: Duplex,
  latest: ServerResponse | undefined,
): void {
  // An answer that has begun cannot be followed by another before its end.
  const begun = latest !== undefined && latest.headersSent && !latest.writableFinished;
  if (socket.writable && !begun && error.code !== 'ECONNRESET') {
    const status = STATUSES[error.code ?? ''] ?? 400;
    writeAnswer(socket, status, 'UNSUPPORTED', 'the request is malformed, too large, or took too long');
  }
  socket.destroy();
}

/** Writes a whole answer to a connection that node:http has no response for. */
export function writeAnswer(socket: Duplex, status: number, code: string, message: string): void {
  const body = JSON.stringify({ errors: [{ code, message }] });
  socket.write(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nConnection: close\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
