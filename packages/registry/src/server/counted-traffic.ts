import type { ServerResponse } from 'node:http';
import type { Traffic } from '../client/transport.js';
import type { RequestHandler } from './registry-handler.js';

/** The same handler; what it takes and gives is added to `traffic`. */
export function countedTraffic(handler: RequestHandler, traffic: Traffic): RequestHandler {
  return (request, response) => {
    traffic.requests += 1;
    const push = request.push.bind(request);
    request.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
      if (chunk instanceof Uint8Array) traffic.bytesReceived += chunk.length;
      return push(chunk, encoding);
    };
    // What is given as the body of an answer to HEAD does not go out.
    if (request.method !== 'HEAD') countSent(response, traffic);
    handler(request, response);
  };
}

function countSent(response: ServerResponse, traffic: Traffic): void {
  const write = response.write.bind(response) as (...all: unknown[]) => boolean;
  const end = response.end.bind(response) as (...all: unknown[]) => ServerResponse;
  response.write = (...all: unknown[]) => {
    traffic.bytesSent += sizeOf(all[0]);
    return write(...all);
  };
  response.end = (...all: unknown[]) => {
    traffic.bytesSent += sizeOf(all[0]);
    return end(...all);
  };
}

function sizeOf(chunk: unknown): number {
  if (typeof chunk === 'string') return Buffer.byteLength(chunk);
  return chunk instanceof Uint8Array ? chunk.length : 0;
}
