import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LayercacheError, type Digest } from '@layercache/oci';
import { parseRange, type WantedRange } from './byte-range-header.js';
import { sendEmpty, writeHead, type Exchange, type Headers } from './exchange.js';

interface BlobRoute {
  readonly repository: string;
  readonly digest: Digest;
}

/** GET and HEAD /v2/<name>/blobs/<digest> (end-2) */
export async function getBlob(exchange: Exchange, { repository, digest }: BlobRoute): Promise<void> {
  const { registry, request, response, signal } = exchange;
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Docker-Content-Digest': digest,
    'Accept-Ranges': 'bytes',
  };
  const ranged = request.headers.range !== undefined && request.headers['if-range'] === undefined;
  if (request.method === 'GET' && !ranged) {
    const { size, body } = await registry.fetchBlob(repository, digest, { signal });
    await sendBody(exchange, 200, body, {
      ...headers,
      ...(size === undefined ? {} : { 'Content-Length': size }),
    });
    return;
  }
  const size = await registry.blobSize(repository, digest, { signal });
  if (size === undefined) {
    throw new LayercacheError('NOT_FOUND', `${repository} has no blob ${digest}`);
  }
  if (request.method === 'HEAD') {
    sendEmpty(response, 200, { ...headers, 'Content-Length': size });
    return;
  }
  const range = parseRange(request.headers.range, size);
  if (range === 'unsatisfiable') {
    sendEmpty(response, 416, { 'Content-Range': `bytes */${size}` });
    return;
  }
  const { first, last } = range ?? { first: 0, last: size - 1 };
  const length = last - first + 1;
  const fetched = await registry.fetchBlob(repository, digest, {
    signal,
    ...(range === undefined ? {} : { range }),
  });
  const body =
    range === undefined
      ? fetched.body
      : Readable.from(cut(fetched.body, range, fetched.offset), { objectMode: false });
  const contentRange = range === undefined ? {} : { 'Content-Range': `bytes ${first}-${last}/${size}` };
  await sendBody(exchange, range === undefined ? 200 : 206, body, {
    ...headers,
    ...contentRange,
    'Content-Length': length,
  });
}

/** DELETE /v2/<name>/blobs/<digest> (end-10) */
export async function deleteBlob(exchange: Exchange, { repository, digest }: BlobRoute): Promise<void> {
  await exchange.registry.deleteBlob(repository, digest, { signal: exchange.signal });
  sendEmpty(exchange.response, 202);
}

async function sendBody(
  { response, signal }: Exchange,
  status: number,
  body: Readable,
  headers: Headers,
): Promise<void> {
  const length = headers['Content-Length'];
  writeHead(response, status, headers);
  if (typeof length === 'number') {
    await pipeline(body, (chunks: AsyncIterable<Uint8Array>) => exactly(chunks, length), response, {
      signal,
    });
  } else await pipeline(body, response, { signal });
}

/**
 * A body that is not as long as was announced must break the connection; otherwise the client waits for the rest,
 * or takes what is too much for the next answer. (node:http's own check throws where nobody can catch it.)
 */
async function* exactly(chunks: AsyncIterable<Uint8Array>, length: number): AsyncGenerator<Uint8Array> {
  let sent = 0;
  for await (const chunk of chunks) {
    sent += chunk.length;
    if (sent > length) break;
    yield chunk;
  }
  if (sent !== length) {
    const found = sent > length ? 'more' : `only ${sent}`;
    throw new LayercacheError(
      'REGISTRY',
      `the blob was announced with ${length} bytes, but the registry gave ${found}`,
    );
  }
}

/** Of bytes that start at `offset` of a blob, those in the range: a registry without ranges sends it whole. */
async function* cut(body: Readable, range: WantedRange, offset: number): AsyncGenerator<Uint8Array> {
  let position = offset;
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    const start = Math.max(0, range.first - position);
    const end = Math.min(chunk.length, range.last + 1 - position);
    position += chunk.length;
    if (start < end) yield chunk.subarray(start, end);
    if (position > range.last) return;
  }
}
