import { LayercacheError } from './errors.js';

interface Flight<T> {
  readonly result: Promise<T>;
  readonly abort: AbortController;
  waiting: number;
}

/**
 * Callers who want the same thing at the same time share one piece of work. Each may give up on its own; the
 * work is aborted when the last of them has.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** @throws LayercacheError `ABORTED` when `signal` fires, whatever becomes of the work */
  async run(
    key: string,
    signal: AbortSignal | undefined,
    start: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal);
    const flight = this.#flights.get(key) ?? this.#start(key, start);
    flight.waiting += 1;
    try {
      return await unlessAborted(flight.result, signal);
    } finally {
      flight.waiting -= 1;
      if (flight.waiting === 0) {
        // Gone from the map first: whoever comes now must not join work that is being aborted.
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
        flight.abort.abort();
      }
    }
  }

  #start(key: string, start: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController();
    const flight = { abort, waiting: 0, result: start(abort.signal) };
    // A rejection reaches those who wait; when all have left, it has nobody to go to.
    flight.result.catch(() => undefined);
    this.#flights.set(key, flight);
    return flight;
  }
}

/** @throws LayercacheError `ABORTED` */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError(signal);
}

export function abortedError(signal: AbortSignal | undefined): LayercacheError {
  return new LayercacheError('ABORTED', 'the operation was aborted', { cause: signal?.reason });
}

async function unlessAborted<T>(result: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return result;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => {
      reject(abortedError(signal));
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([result, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}
