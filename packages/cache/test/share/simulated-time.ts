import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../src/share/clock.js';

interface Event {
  readonly at: number;
  readonly order: number;
  readonly happen: () => void;
}

/** Numbers from 0 to 1 that follow from a seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Time that passes when every process of a simulation waits for it, and not before: so it does not matter how fast
 * this machine is. Several processes share it, each with a clock of its own.
 */
export class SimulatedTime {
  #now = 0;
  #order = 0;
  #events: Event[] = [];
  /** Waits that each living process has under way. */
  readonly #waiting = new Map<SimulatedProcess, number>();

  get now(): number {
    return this.#now;
  }

  /** Runs processes until all have ended. */
  async run(processes: readonly ((process: SimulatedProcess) => Promise<void>)[]): Promise<void> {
    let living = processes.length;
    const ends = processes.map(async (work) => {
      const process = new SimulatedProcess(this);
      this.#waiting.set(process, 0);
      try {
        await work(process);
      } finally {
        this.#waiting.delete(process);
        living -= 1;
      }
    });
    const ended = Promise.allSettled(ends);
    while (living > 0) {
      await turn();
      if (living > 0 && this.#allWait()) this.#next();
    }
    for (const end of await ended) if (end.status === 'rejected') throw end.reason as Error;
    // Requests that nobody waits for any more arrive all the same.
    while (this.#events.length > 0) this.#next();
  }

  /** Has something happen later, whoever waits for it. */
  after(milliseconds: number, happen: () => void): void {
    this.#events.push({ at: this.#now + milliseconds, order: this.#order++, happen });
  }

  begin(process: SimulatedProcess): void {
    this.#waiting.set(process, (this.#waiting.get(process) ?? 0) + 1);
  }

  end(process: SimulatedProcess): void {
    const count = this.#waiting.get(process);
    if (count !== undefined) this.#waiting.set(process, count - 1);
  }

  #allWait(): boolean {
    return [...this.#waiting.values()].every((count) => count > 0);
  }

  #next(): void {
    let first: Event | undefined;
    for (const event of this.#events) {
      if (first === undefined || event.at < first.at || (event.at === first.at && event.order < first.order))
        first = event;
    }
    if (first === undefined) throw new Error('every process waits, and nothing will happen');
    this.#events = this.#events.filter((event) => event !== first);
    this.#now = first.at;
    first.happen();
  }
}

/** Somebody in a simulation. */
export class SimulatedProcess implements Clock {
  readonly #time: SimulatedTime;

  constructor(time: SimulatedTime) {
    this.#time = time;
  }

  now(): number {
    return this.#time.now;
  }

  sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return this.wait(milliseconds, signal);
  }

  /** Resolves at that time, or rejects before it when the signal is aborted; what is to happen then happens anyway. */
  wait(milliseconds: number, signal?: AbortSignal, happen: () => void = () => undefined): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    this.#time.begin(this);
    return new Promise<void>((resolve, reject) => {
      let isOver = false;
      const settle = (then: () => void): void => {
        if (isOver) return;
        isOver = true;
        signal?.removeEventListener('abort', aborted);
        this.#time.end(this);
        then();
      };
      const aborted = (): void => {
        settle(() => {
          reject(signal?.reason as Error);
        });
      };
      signal?.addEventListener('abort', aborted);
      this.#time.after(milliseconds, () => {
        happen();
        settle(resolve);
      });
    });
  }
}
