import { availableParallelism } from 'node:os';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import pLimit from 'p-limit';
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
import { inflateFrom } from './deflate/restart.js';
import { SpanContinuity } from './deflate/span-continuity.js';
import { MAX_SPAN, readSpan, spanAt, type IndexedLayer, type Span } from './spans.js';

export interface ParallelOptions {
  /** Spans to inflate at once. Default: two more than there are cores. zlib's threads in Node are four. */
  readonly concurrency?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface DecompressOptions extends ParallelOptions {
  /** What the tar must hash to. */
  readonly diffID: Digest;
}

/** Output of a span that is held until its turn comes. A larger one is inflated only then. */
const MAX_OUTPUT = 16 << 20;
/** Bytes that are hashed in one go. */
const PORTION = 1 << 20;
/** Spans that are inflated, or under way, before their turn: so that no thread waits for the one that hashes. */
const AHEAD = 8;
/** Bytes of output, ahead of the turn, above which no more spans are started. */
const MAX_AHEAD = 64 << 20;

/**
 * The tar of a layer with an index, inflated by several of zlib's threads at once, hashed in order. (Threads of our
 * own cost 20 % more: each output would be fresh memory.) Reads and inflates only a few spans ahead of the consumer:
 * 64 MiB at most. What comes out is verified as one: the stream fails with `DIFFID_MISMATCH` before its end unless
 * all of it hashes to `diffID`, whatever the index said.
 */
export function decompressLayer(layer: IndexedLayer, options: DecompressOptions): Readable {
  return Readable.from(verified(inflateLayer(layer, options), options), {
    objectMode: false,
    highWaterMark: 1,
  });
}

/**
 * What {@link decompressLayer} gives, unverified, for a receiver who hashes it. The sizes and windows of the index are
 * held against the output: the stream fails with `COMPRESSION_INVALID` where they are wrong.
 */
export function inflateLayer(layer: IndexedLayer, options: ParallelOptions = {}): AsyncIterable<Uint8Array> {
  const { ztoc, bytes } = layer;
  if (ztoc.compression === 'uncompressed')
    return portions(bytes.read(0, bytes.size, options.signal), options.signal);
  const spans = ztoc.checkpoints.map((_, index) => spanAt(ztoc, index)).filter((span) => span !== undefined);
  if (spans.some((span) => span.end - span.start > MAX_SPAN)) return streamed(layer, options);
  return inflated(layer, spans, options);
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

type Inflated = AsyncIterable<Uint8Array> | readonly Uint8Array[];

async function* inflated(
  layer: IndexedLayer,
  spans: readonly Span[],
  { concurrency = availableParallelism() + 2, signal }: ParallelOptions,
): AsyncGenerator<Uint8Array> {
  const limit = pLimit(concurrency);
  const ahead: { readonly span: Span; readonly inflating: Promise<Inflated>; readonly size: number }[] = [];
  const continuity = new SpanContinuity();
  let held = 0;
  async function* inTurn(): AsyncGenerator<Uint8Array> {
    const first = ahead.shift();
    if (first === undefined) return;
    continuity.begin(first.span);
    for await (const piece of await untilAborted(first.inflating, signal)) {
      continuity.take(piece);
      for (let at = 0; at < piece.length; at += PORTION) {
        yield piece.subarray(at, at + PORTION);
        // The event loop has to come round, or zlib's threads wait while a whole span is hashed.
        await setImmediate();
      }
    }
    held -= first.size;
  }
  try {
    for (const span of spans) {
      const size = outputSize(span) ?? 0;
      while (ahead.length >= Math.max(AHEAD, concurrency) || (ahead.length > 0 && held + size > MAX_AHEAD))
        yield* inTurn();
      const inflating = limit(inflate, layer, span, signal);
      inflating.catch(() => undefined);
      ahead.push({ span, inflating, size });
      held += size;
    }
    while (ahead.length > 0) yield* inTurn();
  } finally {
    limit.clearQueue();
  }
}

/** Bytes; undefined when only inflating tells. */
function outputSize({ output, outputEnd }: Span): number | undefined {
  return outputEnd === undefined ? undefined : outputEnd - output;
}

async function inflate(layer: IndexedLayer, span: Span, signal: AbortSignal | undefined): Promise<Inflated> {
  const { checkpoint } = span;
  if (checkpoint === undefined) return [];
  const bytes = await readSpan(layer, span, signal);
  const size = outputSize(span);
  if (size === undefined || size > MAX_OUTPUT) return inflateFrom(checkpoint, bytes);
  const pieces: Uint8Array[] = [];
  let found = 0;
  for await (const piece of inflateFrom(checkpoint, bytes, { pieceSize: size })) {
    pieces.push(piece);
    found += piece.length;
    if (found > size) break;
  }
  if (found === size) return pieces;
  throw new LayercacheError(
    'COMPRESSION_INVALID',
    `the span at byte ${span.start} does not give ${size} bytes: the layer or its index is corrupt; index the layer again`,
  );
}

/** Without the index, for a layer that does not come apart. */
async function* streamed({ bytes }: IndexedLayer, { signal }: ParallelOptions): AsyncGenerator<Uint8Array> {
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
