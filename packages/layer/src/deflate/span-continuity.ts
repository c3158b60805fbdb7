import { LayercacheError } from '@layercache/oci';
import type { Span } from '../spans.js';
import { WINDOW_SIZE } from './checkpoint.js';

/**
 * Holds the output of spans that are inflated one after the other against the index: where each starts and ends, and
 * the window that inflation was taken up with, which is the output before it. A wrong window gives wrong bytes from
 * compressed bytes that are right.
 */
export class SpanContinuity {
  /** The last bytes of output; `#known` of them, at its end, have been seen. */
  readonly #tail = Buffer.alloc(WINDOW_SIZE);
  #known = 0;
  /** Where in the tar the output has got to; undefined before the first span. */
  #output: number | undefined;
  #span: Span | undefined;

  /** @throws LayercacheError `COMPRESSION_INVALID` when the span does not start where the one before ended, or so */
  begin(span: Span): void {
    if (this.#output !== undefined && this.#output !== span.output) this.#refuseSize();
    const known = Math.min(this.#known, span.output);
    const window = span.checkpoint?.window;
    if (known > 0 && window !== undefined && !this.#endsWith(window, known)) {
      throw new LayercacheError(
        'COMPRESSION_INVALID',
        `the window of the checkpoint at byte ${span.start} is not what the layer has before it: its index is wrong; index the layer again`,
      );
    }
    this.#span = span;
    this.#output = span.output;
  }

  /** @throws LayercacheError `COMPRESSION_INVALID` when the span has more output than the index says */
  take(piece: Uint8Array): void {
    this.#output = (this.#output ?? 0) + piece.length;
    if (this.#output > (this.#span?.outputEnd ?? Infinity)) this.#refuseSize();
    if (piece.length >= WINDOW_SIZE) this.#tail.set(piece.subarray(-WINDOW_SIZE));
    else {
      this.#tail.copyWithin(0, piece.length);
      this.#tail.set(piece, WINDOW_SIZE - piece.length);
    }
    this.#known = Math.min(WINDOW_SIZE, this.#known + piece.length);
  }

  #endsWith(window: Uint8Array, size: number): boolean {
    return this.#tail.compare(window, WINDOW_SIZE - size, WINDOW_SIZE, WINDOW_SIZE - size) === 0;
  }

  #refuseSize(): never {
    const { start = 0, output = 0, outputEnd = 0 } = this.#span ?? {};
    throw new LayercacheError(
      'COMPRESSION_INVALID',
      `the span at byte ${start} does not give ${outputEnd - output} bytes: the layer or its index is corrupt; index the layer again`,
    );
  }
}
