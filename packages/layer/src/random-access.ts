import { Readable } from 'node:stream';
import { LayercacheError, throwIfAborted } from '@layercache/oci';
import { inflateFrom } from './deflate/restart.js';
import { SpanContinuity } from './deflate/span-continuity.js';
import { readSpan, spanAt, spanIndexOf, verifySpan, type IndexedLayer, type Span } from './spans.js';
import type { TarEntry } from './tar/entry.js';

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Bytes `start` up to and without `end` of the tar inside a layer. Only the spans they lie in are read, each
 * checked against its digest before anything of it is handed over. Where a read goes on from one span to the next, the
 * window of the next is checked against the output before it. Memory: one span, compressed.
 *
 * The stream fails with `DIGEST_MISMATCH` or `COMPRESSION_INVALID` when the layer is not the one indexed.
 */
export function readRange(
  layer: IndexedLayer,
  start: number,
  end: number,
  options: ReadOptions = {},
): Readable {
  return Readable.from(range(layer, start, end, options), { objectMode: false });
}

/** The contents of a regular file, with the holes of a sparse one as zeros. */
export function readFile(
  layer: IndexedLayer,
  entry: Pick<TarEntry, 'offset' | 'size' | 'sparse'>,
  options: ReadOptions = {},
): Readable {
  return Readable.from(file(layer, entry, options), { objectMode: false });
}

async function* range(
  layer: IndexedLayer,
  start: number,
  end: number,
  { signal }: ReadOptions,
): AsyncGenerator<Uint8Array> {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start > end) {
    throw new LayercacheError(
      'USAGE',
      `bytes ${start} to ${end} are no range: give a start and an end not before it`,
    );
  }
  let at = start;
  const continuity = new SpanContinuity();
  for (let index = spanIndexOf(layer.ztoc, start); at < end; index++) {
    throwIfAborted(signal);
    const span = spanAt(layer.ztoc, index);
    if (span === undefined) break;
    if (span.outputEnd !== undefined && span.outputEnd <= at) continue;
    const bytes = await readSpan(layer, span, signal);
    verifySpan(layer.ztoc, span, bytes);
    const stop = Math.min(end, span.outputEnd ?? end);
    for await (const piece of slice(
      outputOf(span, bytes, continuity),
      at - span.output,
      stop - span.output,
    )) {
      throwIfAborted(signal);
      at += piece.length;
      yield piece;
    }
    if (at < stop) break;
  }
  if (at < end) {
    throw new LayercacheError(
      'COMPRESSION_INVALID',
      `the tar ends at byte ${at}, before byte ${end} that was asked for: it is not the layer of this index`,
    );
  }
}

async function* outputOf(
  span: Span,
  bytes: Uint8Array,
  continuity: SpanContinuity,
): AsyncGenerator<Uint8Array> {
  continuity.begin(span);
  for await (const piece of span.checkpoint === undefined ? [bytes] : inflateFrom(span.checkpoint, bytes)) {
    continuity.take(piece);
    yield piece;
  }
}

/** Bytes `from` up to and without `to` of a stream, which is not read any further. */
async function* slice(
  pieces: AsyncIterable<Uint8Array>,
  from: number,
  to: number,
): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const piece of pieces) {
    const wanted = piece.subarray(Math.max(0, from - at), Math.max(0, to - at));
    if (wanted.length > 0) yield wanted;
    at += piece.length;
    if (at >= to) return;
  }
}

const HOLE = new Uint8Array(64 << 10);

function* zeros(size: number): Generator<Uint8Array> {
  for (let left = size; left > 0; left -= HOLE.length) yield HOLE.subarray(0, left);
}

async function* file(
  layer: IndexedLayer,
  { offset, size, sparse }: Pick<TarEntry, 'offset' | 'size' | 'sparse'>,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  if (sparse === undefined) {
    yield* range(layer, offset, offset + size, options);
    return;
  }
  // In one go: segments lie one behind the other in the tar, and a file may have many in one span.
  const stored = range(layer, offset, offset + size, options);
  let piece: Uint8Array = HOLE.subarray(0, 0);
  let at = 0;
  try {
    for (const segment of sparse.segments) {
      yield* zeros(segment.offset - at);
      for (let left = segment.size; left > 0;) {
        if (piece.length === 0) {
          const next = await stored.next();
          if (next.done === true) return;
          piece = next.value;
        }
        const part = piece.subarray(0, left);
        piece = piece.subarray(part.length);
        left -= part.length;
        yield part;
      }
      at = segment.offset + segment.size;
    }
  } finally {
    await stored.return(undefined);
  }
  yield* zeros(sparse.size - at);
}
