import type { ServerResponse } from 'node:http';
import type { RequestHandler } from '../server/registry-handler.js';

export interface Drops {
  /** How many answers break off. */
  readonly times: number;
  /** Bytes of a body after which its connection breaks. Shorter ones arrive. */
  readonly after: number;
}

/** Connections break in the middle of a body. */
export function droppingConnections({ times, after }: Drops): (handler: RequestHandler) => RequestHandler {
  return (handler) => {
    let left = times;
    return (request, response) => {
      let sent = 0;
      let dropped = false;
      beforeWrite(response, (chunk, pass) => {
        if (dropped) return;
        sent += chunk.length;
        if (left === 0 || sent <= after) {
          pass(chunk);
          return;
        }
        left -= 1;
        dropped = true;
        pass(chunk.subarray(0, chunk.length - (sent - after)));
        // What was written leaves first. Until then the answer may be over, and the connection no longer its own.
        const { socket } = response;
        setImmediate(() => socket?.destroySoon());
      });
      handler(request, response);
    };
  };
}

/** Every chunk of a body waits `milliseconds` before it leaves. */
export function slow(milliseconds: number): (handler: RequestHandler) => RequestHandler {
  return (handler) => (request, response) => {
    let last = Promise.resolve();
    const later = (work: () => void): void => {
      last = last.then(() => new Promise((resolve) => setTimeout(resolve, milliseconds))).then(work);
    };
    const [write, end] = [response.write.bind(response), response.end.bind(response)];
    response.write = ((chunk: Uint8Array) => {
      later(() => {
        // Where the connection is full, it says itself when it goes on.
        if (response.destroyed || write(chunk)) response.emit('drain');
      });
      return false;
    }) as typeof response.write;
    response.end = ((chunk?: Uint8Array) => {
      later(() => {
        if (response.destroyed) return;
        if (chunk === undefined) end();
        else end(chunk);
      });
      return response;
    }) as typeof response.end;
    handler(request, response);
  };
}

/** Sees the chunks of a body that is written in several; an answer that fits into its `end` passes by. */
function beforeWrite(
  response: ServerResponse,
  see: (chunk: Uint8Array, pass: (chunk: Uint8Array) => void) => void,
): void {
  const write = response.write.bind(response);
  response.write = ((chunk: Uint8Array) => {
    let flowing = true;
    see(chunk, (bytes) => {
      flowing = write(bytes);
    });
    return flowing;
  }) as typeof response.write;
}
