import { availableParallelism } from 'node:os';
import { Readable } from 'node:stream';
import {
  digestAlgorithm,
  Digester,
  IntegrityError,
  LayercacheError,
  throwIfAborted,
  type Digest,
} from '@layercache/oci';
import { untilAborted } from './abort.js';
import { portions } from './bytes.js';
import { GzipInflation } from './deflate/gzip-inflation.js';
import { inflateFrom, PREFIX_ROOM } from './deflate/restart.js';
import { SpanPool } from './deflate/span-pool.js';
import { MAX_SPAN, readSpan, spanAt, type IndexedLayer, type Span } from './spans.js';

export interface DecompressOptions {
  /** What the tar must hash to. */
  readonly diffID: Digest;
  /** Threads that inflate. Default: one for each core. */
  readonly workers?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Output of a span that a thread makes at once. A larger one is streamed. */
const MAX_OUTPUT = 16 << 20;

/** Spans in work for each thread: one being inflated, one waiting there, one being hashed here. */
const SPANS_PER_WORKER = 3;

/**
 * The tar of a layer with an index, inflated by several threads, hashed in order. Reads and inflates only a few
 * spans ahead of the consumer. What comes out is verified as one: the stream fails with `DIFFID_MISMATCH`
 * before its end unless all of it hashes to `diffID`, whatever the index said.
 */
export function decompressLayer(layer: IndexedLayer, options: DecompressOptions): Readable {
  return Readable.from(verified(output(layer, options), options), { objectMode: false, highWaterMark: 1 });
}

async function* verified(
  pieces: AsyncIterable<Uint8Array>,
  { diffID, signal }: DecompressOptions,
): AsyncGenerator<Uint8Array> {
  const digester = new Digester(digestAlgorithm(diffID));
  let last: Uint8Array | undefined;
  for await (const piece of pieces) {
    throwIfAborted(signal);
    if (last !== undefined) yield last;
    digester.update(piece);
    last = piece;
  }
  const found = digester.digest();
  if (found !== diffID) {
    throw new IntegrityError(
      'DIFFID_MISMATCH',
      `the layer decompresses to ${found}, not to ${diffID}: it or its index is wrong; index the layer again`,
      { expected: diffID, found },
    );
  }
  if (last !== undefined) yield last;
}

function output(layer: IndexedLayer, options: DecompressOptions): AsyncIterable<Uint8Array> {
  const { ztoc, bytes } = layer;
  if (ztoc.compression === 'uncompressed')
    return portions(bytes.read(0, bytes.size, options.signal), options.signal);
  const spans = ztoc.checkpoints.map((_, index) => spanAt(ztoc, index)).filter((span) => span !== undefined);
  if (spans.some((span) => span.end - span.start > MAX_SPAN)) return streamed(layer, options);
  return inflated(layer, spans, options);
}

/** How a span becomes output: at once in a thread, or piece by piece here. */
type Inflating = Promise<readonly Uint8Array[] | AsyncIterable<Uint8Array>>;

async function* inflated(
  layer: IndexedLayer,
  spans: readonly Span[],
  { workers = availableParallelism(), signal }: DecompressOptions,
): AsyncGenerator<Uint8Array> {
  const pool = new SpanPool(Math.max(1, Math.min(workers, spans.length)));
  const inWork: Inflating[] = [];
  try {
    for (const span of spans) {
      const inflating = inflate(layer, span, pool, signal);
      inflating.catch(() => undefined);
      inWork.push(inflating);
      const first = inWork.length < workers * SPANS_PER_WORKER ? undefined : inWork.shift();
      if (first !== undefined) yield* await untilAborted(first, signal);
    }
    for (const inflating of inWork) yield* await untilAborted(inflating, signal);
  } finally {
    pool.close();
  }
}

async function inflate(
  layer: IndexedLayer,
  span: Span,
  pool: SpanPool,
  signal: AbortSignal | undefined,
): Inflating {
  const { checkpoint, output, outputEnd } = span;
  if (checkpoint === undefined) return [];
  const padded = await readSpan(layer, span, signal, PREFIX_ROOM);
  const size = outputEnd === undefined ? undefined : outputEnd - output;
  if (size === undefined || size > MAX_OUTPUT) return inflateFrom(checkpoint, padded.subarray(PREFIX_ROOM));
  const piece = await pool.inflate({ checkpoint, padded, size, limit: size });
  if (piece.length === size) return [piece];
  throw new LayercacheError(
    'COMPRESSION_INVALID',
    `the span at byte ${span.start} gives ${piece.length} bytes, not ${size}: the layer or its index is corrupt; index the layer again`,
  );
}

/** Without the index, for a layer that does not come apart. */
async function* streamed({ bytes }: IndexedLayer, { signal }: DecompressOptions): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  const inflation = new GzipInflation((piece) => ready.push(piece));
  try {
    for await (const portion of portions(bytes.read(0, bytes.size, signal), signal)) {
      await inflation.write(portion);
      yield* ready.splice(0);
    }
    await inflation.finish();
    yield* ready;
  } finally {
    inflation.close();
  }
}
