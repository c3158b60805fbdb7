import type { Readable } from 'node:stream';

/**
 * Tells how many bytes a stream gives, as they come, without another stream in between: whoever produces them calls
 * `push`, which is the same for all of Node's streams.
 */
export function countedStream(stream: Readable, onBytes: (count: number) => void): Readable {
  const push = stream.push.bind(stream);
  stream.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
    if (chunk instanceof Uint8Array) onBytes(chunk.length);
    return push(chunk, encoding);
  };
  return stream;
}
