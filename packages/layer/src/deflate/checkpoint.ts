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

/**
 * Which block starts become checkpoints: SOCI's rule, itself zran's. The start of the data, and then the first
 * block after more than a span of output.
 */
export class SpanRule {
  readonly #spanSize: number;
  #last = 0;

  constructor(spanSize: number) {
    this.#spanSize = spanSize;
  }

  /** Whether this block start, the next in the stream, begins a span. */
  begins(start: BlockStart): boolean {
    if (start.output !== 0 && start.output - this.#last <= this.#spanSize) return false;
    this.#last = start.output;
    return true;
  }
}

/** Offset in the compressed stream of the first byte that a reader of the span needs. */
export function spanStart(checkpoint: BlockStart): number {
  return checkpoint.bits === 0 ? checkpoint.input : checkpoint.input - 1;
}
