import type { BlockStart } from './gzip-scanner.js';

/** How far back a deflate match can reach (RFC 1951 section 2). */
export const WINDOW_SIZE = 32 * 1024;

/** The span of SOCI's own indexes: 4 MiB of output. */
export const DEFAULT_SPAN_SIZE = 4 * 1024 * 1024;

/** A block start with all that inflation needs to be taken up there. */
export interface Checkpoint extends BlockStart {
  /** The `WINDOW_SIZE` bytes of output before it; zeros where there was none yet. */
  readonly window: Uint8Array;
}

/** Bytes of output that one byte of deflate data can stand for, at most: 258 for each two bits. */
export const MAX_EXPANSION = 1032;

/**
 * Compressed bytes for each checkpoint but the first, at least, so that the windows of an index take about eight times
 * the bytes of its layer at most. 4 MiB of output come from no fewer (see {@link MAX_EXPANSION}).
 */
const INPUT_PER_CHECKPOINT = 4000;

/** Checkpoints of one layer, at most: 256 MiB of windows. Behind the last one, the layer is read as a stream. */
const MAX_CHECKPOINTS = 8192;

/** Spans of a layer that all have the size asked for. Those behind them grow with the output before them. */
const EQUAL_SPANS = 1024;

/** Bytes of output at which spans stop to grow: the compressed bytes of a larger one could not be held at once. */
const MAX_GROWN_SPAN = 32 * 1024 * 1024;

/** How many checkpoints a layer of a size can have, in an index of anybody's. */
export function maxCheckpoints(compressedSize: number): number {
  return 1 + Math.floor(compressedSize / INPUT_PER_CHECKPOINT);
}

/**
 * The rule that decides which block starts become checkpoints. It is SOCI's, itself zran's, with bounds: the start of
 * the data, and then the first block after more than a span of output. No two checkpoints have the same output offset,
 * whatever empty blocks a stream has, and their number is bounded by the compressed size, and for all layers.
 */
export class SpanRule {
  readonly #spanSize: number;
  #count = 0;
  #output = 0;

  constructor(spanSize: number) {
    this.#spanSize = spanSize;
  }

  /** Whether this block start, the next in the stream, begins a span. */
  begins({ input, output }: BlockStart): boolean {
    if (this.#count > 0) {
      const grown = Math.min(this.#output / EQUAL_SPANS, MAX_GROWN_SPAN);
      if (output - this.#output <= Math.max(this.#spanSize, grown)) return false;
      if (this.#count >= Math.min(maxCheckpoints(input), MAX_CHECKPOINTS)) return false;
    }
    this.#count++;
    this.#output = output;
    return true;
  }
}

/** Offset in the compressed stream of the first byte that a reader of the span needs. */
export function spanStart(checkpoint: BlockStart): number {
  return checkpoint.bits === 0 ? checkpoint.input : checkpoint.input - 1;
}
