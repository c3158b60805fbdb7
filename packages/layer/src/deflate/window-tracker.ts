import { WINDOW_SIZE, type Checkpoint } from './checkpoint.js';
import type { BlockStart } from './gzip-scanner.js';

/** Watches output go by and keeps the window in front of each block start that was announced in time. */
export class WindowTracker {
  readonly checkpoints: Checkpoint[] = [];
  readonly #announced: BlockStart[] = [];
  /** The last `WINDOW_SIZE` bytes that went by; zeros before there were as many. */
  #recent: Buffer = Buffer.alloc(WINDOW_SIZE);
  #output = 0;

  /** Announces a block start whose output has not gone by yet. */
  announce(start: BlockStart): void {
    this.#announced.push(start);
    this.#take(new Uint8Array(0));
  }

  output(piece: Uint8Array): void {
    this.#take(piece);
    this.#output += piece.length;
    this.#recent = this.#before(piece, piece.length);
  }

  #take(piece: Uint8Array): void {
    for (;;) {
      const start = this.#announced[0];
      if (start === undefined || start.output > this.#output + piece.length) return;
      this.#announced.shift();
      this.checkpoints.push({ ...start, window: this.#before(piece, start.output - this.#output) });
    }
  }

  /** The window in front of byte `at` of the piece. */
  #before(piece: Uint8Array, at: number): Buffer {
    const window = Buffer.alloc(WINDOW_SIZE);
    const fromPiece = Math.min(at, WINDOW_SIZE);
    this.#recent.copy(window, 0, fromPiece);
    window.set(piece.subarray(at - fromPiece, at), WINDOW_SIZE - fromPiece);
    return window;
  }
}
