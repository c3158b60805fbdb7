import { digestAlgorithm, digestOf, IntegrityError, LayercacheError } from '@layercache/oci';
import { fill, type ByteReader } from './bytes.js';
import { spanStart, type Checkpoint } from './deflate/checkpoint.js';
import type { Ztoc } from './ztoc/ztoc.js';

/** A layer with its index. */
export interface IndexedLayer {
  readonly ztoc: Ztoc;
  /** The layer in the form that the index describes. */
  readonly bytes: ByteReader;
}

/** A stretch of a layer that can be read by itself. */
export interface Span {
  readonly index: number;
  /** Compressed bytes from `start` up to and without `end`. */
  readonly start: number;
  readonly end: number;
  /** Where in the tar it starts. */
  readonly output: number;
  /** Where in the tar it ends; undefined for the last one, of which only reading tells. */
  readonly outputEnd: number | undefined;
  /** Where inflation is taken up; undefined in a plain tar. */
  readonly checkpoint: Checkpoint | undefined;
}

/**
 * Compressed bytes of a span that are held at once. A deflate block can be of any length; one this long was not
 * made by a compressor, and a layer that has one must be read as a stream.
 */
export const MAX_SPAN = 64 << 20;

export function spanAt(ztoc: Ztoc, index: number): Span | undefined {
  if (index < 0 || index >= ztoc.spanDigests.length) return undefined;
  if (ztoc.compression === 'uncompressed') {
    const start = index * ztoc.spanSize;
    const end = Math.min(start + ztoc.spanSize, ztoc.compressedSize);
    return { index, start, end, output: start, outputEnd: end, checkpoint: undefined };
  }
  const checkpoint = ztoc.checkpoints[index];
  if (checkpoint === undefined) return undefined;
  const next = ztoc.checkpoints[index + 1];
  return {
    index,
    start: spanStart(checkpoint),
    end: next?.input ?? ztoc.compressedSize,
    output: checkpoint.output,
    outputEnd: next?.output,
    checkpoint,
  };
}

/** The last span that starts at or before a byte of the tar. */
export function spanIndexOf(ztoc: Ztoc, output: number): number {
  if (ztoc.compression === 'uncompressed') return Math.floor(output / ztoc.spanSize);
  let low = 0;
  let high = ztoc.checkpoints.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((ztoc.checkpoints[middle]?.output ?? 0) <= output) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * The compressed bytes of one span, and nothing else of the layer.
 *
 * @throws LayercacheError `COMPRESSION_INVALID` when the layer is shorter than its index says
 */
export async function readSpan(
  layer: IndexedLayer,
  span: Span,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const size = span.end - span.start;
  if (size > MAX_SPAN) {
    throw new LayercacheError(
      'UNSUPPORTED',
      `a span of ${size} bytes is too large to be read by itself: decompress the layer instead`,
    );
  }
  const bytes = Buffer.allocUnsafe(size);
  const found = await fill(bytes, layer.bytes.read(span.start, span.end, signal), signal);
  if (found !== size) {
    throw new LayercacheError(
      'COMPRESSION_INVALID',
      `bytes ${span.start} to ${span.end} of the layer are ${found}, not ${size}: it is not the layer of this index`,
    );
  }
  return bytes;
}

/** @throws LayercacheError `DIGEST_MISMATCH` when the bytes are not those that were indexed */
export function verifySpan(ztoc: Ztoc, span: Span, bytes: Uint8Array): void {
  const expected = ztoc.spanDigests[span.index];
  if (expected === undefined) return;
  const found = digestOf(bytes, digestAlgorithm(expected));
  if (found === expected) return;
  throw new IntegrityError(
    'DIGEST_MISMATCH',
    `bytes ${span.start} to ${span.end} of the layer hash to ${found}, not to ${expected}; fetch the layer again`,
    { expected, found },
  );
}
