import { Worker } from 'node:worker_threads';
import { LayercacheError } from '@layercache/oci';
import type { Checkpoint } from './checkpoint.js';

export interface SpanRequest {
  readonly checkpoint: Checkpoint;
  /** Behind `PREFIX_ROOM` spare bytes. */
  readonly padded: Uint8Array;
  /** Bytes that must come out; undefined for the last span, of which it is not known. */
  readonly size: number | undefined;
  readonly limit: number;
}

export interface SpanReply {
  readonly output?: Uint8Array;
  readonly problem?: string;
}

interface Job {
  readonly request: SpanRequest;
  readonly resolve: (output: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  /** The first is being worked on, the next waits there: no thread has to wait for this one. */
  readonly jobs: Job[];
}

const JOBS_PER_THREAD = 2;

/** Threads that inflate spans. */
export class SpanPool {
  readonly #threads: Thread[] = [];
  readonly #queue: Job[] = [];
  #failure: Error | undefined;

  constructor(size: number) {
    for (let index = 0; index < size; index++) {
      const worker = new Worker(new URL('./span-worker.js', import.meta.url));
      const thread: Thread = { worker, jobs: [] };
      worker.on('message', (reply: SpanReply) => {
        this.#settle(thread, reply);
      });
      worker.on('error', (error) => {
        this.#fail(error instanceof Error ? error : new Error(String(error)));
      });
      worker.on('exit', () => {
        this.#fail(
          new LayercacheError('ABORTED', 'the layer was not read to its end: its threads were stopped'),
        );
      });
      this.#threads.push(thread);
    }
  }

  /** Inflates a span as soon as a thread has room for it. `request.padded` belongs to the pool from now on. */
  inflate(request: SpanRequest): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#queue.push({ request, resolve, reject });
      this.#dispatch();
    });
  }

  close(): void {
    for (const { worker } of this.#threads) void worker.terminate();
  }

  #dispatch(): void {
    for (let depth = 0; depth < JOBS_PER_THREAD; depth++) {
      for (const { worker, jobs } of this.#threads) {
        if (jobs.length > depth) continue;
        const job = this.#queue.shift();
        if (job === undefined) return;
        jobs.push(job);
        worker.postMessage(job.request, transferable(job.request.padded));
      }
    }
  }

  #settle(thread: Thread, { output, problem }: SpanReply): void {
    const job = thread.jobs.shift();
    this.#dispatch();
    if (output !== undefined) job?.resolve(output);
    else job?.reject(new LayercacheError('COMPRESSION_INVALID', problem ?? 'a span cannot be inflated'));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const jobs = [...this.#threads.flatMap((thread) => thread.jobs.splice(0)), ...this.#queue.splice(0)];
    for (const { reject } of jobs) reject(this.#failure);
  }
}

/** Buffers that own their memory move to the other thread; views of a shared pool are copied. */
export function transferable(bytes: Uint8Array): ArrayBuffer[] {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer &&
    buffer.byteLength === bytes.byteLength &&
    bytes.byteLength > 64 << 10
    ? [buffer]
    : [];
}
