import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from '@layercache/oci';

/** Milliseconds of a turn. */
const LENGTH = 10;

/** A turn of long work on the event loop, at the end of which others get theirs. */
export class Turn {
  #end = performance.now() + LENGTH;

  get isOver(): boolean {
    return performance.now() >= this.#end;
  }

  /**
   * Lets others work, and begins the next turn.
   *
   * @throws LayercacheError `ABORTED`
   */
  async next(signal?: AbortSignal): Promise<void> {
    await setImmediate();
    throwIfAborted(signal);
    this.#end = performance.now() + LENGTH;
  }
}
