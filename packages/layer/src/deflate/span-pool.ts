import { Worker } from 'node:worker_threads';
import { LayercacheError } from '@layercache/oci';
import type { Checkpoint } from './checkpoint.js';

export interface SpanRequest {
  readonly checkpoint: Checkpoint;
  readonly bytes: Uint8Array;
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
  job: Job | undefined;
}

/** Threads that inflate spans, one span each at a time. */
export class SpanPool {
  readonly #threads: Thread[] = [];
  readonly #queue: Job[] = [];
  #failure: Error | undefined;

  constructor(size: number) {
    for (let index = 0; index < size; index++) {
      const worker = new Worker(new URL('./span-worker.js', import.meta.url));
      const thread: Thread = { worker, job: undefined };
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

  /** Inflates a span as soon as a thread is free. `request.bytes` belongs to the pool from now on. */
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
    for (const thread of this.#threads) {
      if (thread.job !== undefined) continue;
      const job = this.#queue.shift();
      if (job === undefined) return;
      thread.job = job;
      thread.worker.postMessage(job.request, transferable(job.request.bytes));
    }
  }

  #settle(thread: Thread, { output, problem }: SpanReply): void {
    const job = thread.job;
    thread.job = undefined;
    this.#dispatch();
    if (output !== undefined) job?.resolve(output);
    else job?.reject(new LayercacheError('COMPRESSION_INVALID', problem ?? 'a span cannot be inflated'));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const thread of this.#threads) {
      thread.job?.reject(this.#failure);
      thread.job = undefined;
    }
    for (const { reject } of this.#queue.splice(0)) reject(this.#failure);
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
