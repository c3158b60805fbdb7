import { Readable } from 'node:stream';

/** A stream whose first piece has come. Resolves then; rejects when there is an error before it. */
export async function begunStream(pieces: AsyncIterable<Uint8Array>): Promise<Readable> {
  const iterator = pieces[Symbol.asyncIterator]();
  const first = await iterator.next();
  const stream = Readable.from(from(first, iterator), { objectMode: false });
  // A stream that is destroyed before it was read does not run its generator.
  stream.once('close', () => {
    void iterator.return?.();
  });
  return stream;
}

async function* from(
  first: IteratorResult<Uint8Array, unknown>,
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
}
