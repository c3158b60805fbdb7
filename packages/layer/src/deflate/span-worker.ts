import { parentPort } from 'node:worker_threads';
import { isLayercacheError } from '@layercache/oci';
import { inflateFromSync } from './restart.js';
import { transferable, type SpanReply, type SpanRequest } from './span-pool.js';

/** The threads of a `SpanPool`. */
function reply({ checkpoint, padded, size, limit }: SpanRequest): SpanReply {
  try {
    return { output: inflateFromSync(checkpoint, padded, size, limit) };
  } catch (error) {
    if (isLayercacheError(error)) return { problem: error.message };
    throw error;
  }
}

parentPort?.on('message', (request: SpanRequest) => {
  const answer = reply(request);
  parentPort?.postMessage(answer, answer.output === undefined ? [] : transferable(answer.output));
});
