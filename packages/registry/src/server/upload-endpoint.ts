import { isLayercacheError, parseDigest, type Digest } from '@layercache/oci';
import type { ByteSource } from '../registry.js';
import { RegistryError } from '../registry-error.js';
import { parseChunkRange } from './byte-range-header.js';
import { bodyOf, sendEmpty, type Exchange } from './exchange.js';
import { invalid, repositoryName } from './route.js';
import type { UploadSession } from './upload-session.js';

/** POST /v2/<name>/blobs/uploads/: opens an upload (end-4a), takes a blob (end-4b), or mounts one (end-11). */
export async function postUpload(
  exchange: Exchange,
  { repository }: { readonly repository: string },
): Promise<void> {
  const { query, response, uploads } = exchange;
  const mount = query.get('mount');
  if (mount !== null && (await mounted(exchange, repository, parseDigest(mount)))) {
    sendStored(exchange, repository, parseDigest(mount));
    return;
  }
  const algorithm = query.get('digest-algorithm');
  if (algorithm !== null && algorithm !== 'sha256' && algorithm !== 'sha512') {
    throw invalid('DIGEST_INVALID', `${JSON.stringify(algorithm.slice(0, 40))} is not sha256 or sha512`);
  }
  const digest = query.get('digest');
  if (digest === null) sendEmpty(response, 202, progress(uploads.start(repository, clientOf(exchange))));
  else await storeAtOnce(exchange, repository, parseDigest(digest));
}

interface UploadRoute {
  readonly repository: string;
  readonly id: string;
}

/** GET <location>: how far an upload is (end-13) */
export function getUpload(exchange: Exchange, { repository, id }: UploadRoute): void {
  const session = exchange.uploads.find(repository, id);
  sendEmpty(exchange.response, 204, progress(session));
}

/** PATCH <location>: one chunk (end-5) */
export async function patchUpload(exchange: Exchange, { repository, id }: UploadRoute): Promise<void> {
  const { uploads, response } = exchange;
  const session = uploads.find(repository, id);
  try {
    await session.inTurn(async () => {
      // While it waited its turn the upload may have ended.
      uploads.find(repository, id);
      await appendChunk(exchange, session);
      sendEmpty(response, 202, progress(session));
    });
  } catch (error) {
    if (endsUpload(error)) await uploads.end(session);
    throw error;
  }
}

/** PUT <location>?digest=: the last chunk, or the whole blob, or nothing more (end-6) */
export async function putUpload(exchange: Exchange, { repository, id }: UploadRoute): Promise<void> {
  const { query, registry, signal, uploads } = exchange;
  const session = uploads.find(repository, id);
  const digest = parseDigest(query.get('digest') ?? '');
  let over = false;
  try {
    await session.inTurn(async () => {
      uploads.find(repository, id);
      const whole = exchange.request.headers['content-range'] === undefined && session.size === 0;
      if (whole && contentLength(exchange) !== undefined) {
        await storeAtOnce(exchange, repository, digest);
      } else {
        await appendChunk(exchange, session);
        await registry.pushBlob(repository, { digest, size: session.size }, session.source, { signal });
        sendStored(exchange, repository, digest);
      }
      over = true;
    });
  } catch (error) {
    over = endsUpload(error);
    throw error;
  } finally {
    if (over) await uploads.end(session);
  }
}

/**
 * Whether an upload is of no more use: wrong bytes stay wrong, and bytes that found no room, or lost it, are not kept.
 * After anything else the client may go on where it was.
 */
function endsUpload(error: unknown): boolean {
  return isLayercacheError(error, 'DIGEST_MISMATCH', 'CACHE_FULL', 'STORAGE', 'NOT_FOUND');
}

/** DELETE <location>: gives an upload up (end-14) */
export async function deleteUpload(exchange: Exchange, { repository, id }: UploadRoute): Promise<void> {
  await exchange.uploads.end(exchange.uploads.find(repository, id));
  sendEmpty(exchange.response, 204);
}

/** Without `from` only the repository itself is asked, or whatever the registry knows beyond its repositories. */
async function mounted(exchange: Exchange, repository: string, digest: Digest): Promise<boolean> {
  const { query, registry, signal } = exchange;
  const from = repositoryName(query.get('from') ?? repository);
  try {
    return await registry.mountBlob(repository, digest, from, { signal });
  } catch (error) {
    // "If a registry does not support cross-repository mounting or is unable to mount the requested blob, it
    // SHOULD return a 202."
    if (isLayercacheError(error, 'NOT_FOUND', 'UNSUPPORTED', 'UNAUTHORIZED')) return false;
    throw error;
  }
}

/** A blob in one request goes to the registry as it comes; only without a length it has to be kept first. */
async function storeAtOnce(exchange: Exchange, repository: string, digest: Digest): Promise<void> {
  const { registry, request, signal, uploads } = exchange;
  const length = contentLength(exchange);
  if (length === undefined) {
    const session = uploads.start(repository, clientOf(exchange));
    try {
      await session.inTurn(async () => {
        await session.append(bodyOf(request), { signal });
        await registry.pushBlob(repository, { digest, size: session.size }, session.source, { signal });
      });
    } finally {
      await uploads.end(session);
    }
  } else {
    await registry.pushBlob(repository, { digest, size: length }, once(bodyOf(request)), { signal });
  }
  sendStored(exchange, repository, digest);
}

async function appendChunk(exchange: Exchange, session: UploadSession): Promise<void> {
  const { request, response, signal } = exchange;
  const header = request.headers['content-range'];
  const length = contentLength(exchange);
  if (header !== undefined) {
    const range = parseChunkRange(header);
    if (range === undefined || (length !== undefined && range.last - range.first + 1 !== length)) {
      throw invalid(
        'BLOB_UPLOAD_INVALID',
        `Content-Range ${JSON.stringify(header.slice(0, 60))} does not fit`,
      );
    }
    if (range.first !== session.size) {
      for (const [name, value] of Object.entries(progress(session))) response.setHeader(name, value);
      throw invalid(
        'BLOB_UPLOAD_INVALID',
        `the chunk starts at byte ${range.first}, but the upload is at ${session.size}`,
        416,
      );
    }
  }
  await session.append(bodyOf(request), { length, signal });
}

function progress(session: UploadSession): Readonly<Record<string, string>> {
  return {
    Location: session.location,
    // The position of the last byte; with none yet there is no right number, and registries say 0-0.
    Range: `0-${Math.max(0, session.size - 1)}`,
    'Docker-Upload-UUID': session.id,
  };
}

function sendStored({ response }: Exchange, repository: string, digest: Digest): void {
  sendEmpty(response, 201, {
    Location: `/v2/${repository}/blobs/${digest}`,
    'Docker-Content-Digest': digest,
  });
}

/** Bytes of the body, or undefined when the client sends it in pieces without saying. */
function contentLength({ request }: Exchange): number | undefined {
  const { 'content-length': header, 'transfer-encoding': encoding } = request.headers;
  if (encoding !== undefined) return undefined;
  const length = Number(header ?? 0);
  if (Number.isSafeInteger(length)) return length;
  throw invalid('SIZE_INVALID', 'no blob has as many bytes as the Content-Length says', 413);
}

function clientOf({ request }: Exchange): string {
  return request.socket.remoteAddress ?? '';
}

/** The body of a request comes once. */
function once(body: AsyncIterable<Uint8Array>): ByteSource {
  let taken = false;
  return () => {
    if (taken) {
      throw new RegistryError('REGISTRY', 'the upload has to be sent again: its bytes came once', {
        status: 503,
        reported: [{ code: 'BLOB_UPLOAD_INVALID' }],
      });
    }
    taken = true;
    return body;
  };
}
