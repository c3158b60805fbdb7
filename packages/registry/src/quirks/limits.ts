import type { RequestHandler } from '../server/registry-handler.js';
import { beforeHead, pathOf, refuse } from './answer.js';

/** No request may bring more than `limit` bytes, nor leave their number open: GHCR's limit is 4 MiB. */
export function requestLimit(limit: number): (handler: RequestHandler) => RequestHandler {
  return (handler) => (request, response) => {
    const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
    if (encoding === undefined && Number(length ?? 0) <= limit) {
      handler(request, response);
      return;
    }
    request.resume();
    if (encoding === undefined)
      refuse(response, 413, 'SIZE_INVALID', `a request has at most ${limit} bytes here`);
    else refuse(response, 411, 'SIZE_INVALID', 'a request has to say how long it is');
  };
}

/** Every chunk but the last has at least `minimum` bytes, as the answer to the POST says: ECR wants 5 MiB. */
export function chunkMinimum(minimum: number): (handler: RequestHandler) => RequestHandler {
  return (handler) => {
    /** Uploads whose last chunk was too short to have another after it. */
    const ended = new Set<string>();
    return (request, response) => {
      const path = pathOf(request.url);
      if (request.method === 'POST') {
        beforeHead(response, (status) => {
          response.setHeader('OCI-Chunk-Min-Length', minimum);
          return status;
        });
      }
      const length = Number(request.headers['content-length'] ?? 0);
      if (ended.has(path) && length > 0) {
        request.resume();
        refuse(
          response,
          416,
          'BLOB_UPLOAD_INVALID',
          `every chunk but the last has at least ${minimum} bytes here`,
        );
        return;
      }
      if (request.method === 'PATCH' && length < minimum) ended.add(path);
      handler(request, response);
    };
  };
}

export interface RateLimit {
  /** How many requests are turned away, from the first one on. */
  readonly times: number;
  /** What to wait: seconds, an HTTP date, or nothing said. */
  readonly retryAfter?: number | Date;
}

/** Turns requests away with 429, except the question for the version. */
export function rateLimited({ times, retryAfter }: RateLimit): (handler: RequestHandler) => RequestHandler {
  return (handler) => {
    let left = times;
    return (request, response) => {
      if (left === 0 || pathOf(request.url) === '/v2/') {
        handler(request, response);
        return;
      }
      left -= 1;
      request.resume();
      if (retryAfter !== undefined) {
        response.setHeader('Retry-After', retryAfter instanceof Date ? retryAfter.toUTCString() : retryAfter);
      }
      refuse(response, 429, 'TOOMANYREQUESTS', 'too many requests');
    };
  };
}
