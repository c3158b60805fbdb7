import { Worker } from 'node:worker_threads';
import { isLayercacheError, LayercacheError } from '@layercache/oci';
import { SpanRule } from './checkpoint.js';
import { GzipScanner, type BlockStart } from './gzip-scanner.js';

/** What is known once a portion of a stream has been scanned. */
export interface Scanned {
  /** The portion, handed back. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Block starts in it that become checkpoints. */
  readonly starts: readonly BlockStart[];
  /** Bytes of the stream, from its start, that have been followed: no start will be found before them. */
  readonly input: number;
}

/** Finds the checkpoints of one gzip stream, portion by portion, in this thread or in another. */
export interface Scanning {
  /** Scans the next portion. It belongs to the scan until it is handed back. */
  scan(bytes: Uint8Array<ArrayBuffer>): Promise<Scanned>;
  /** Scans the end of the stream. */
  finish(): Promise<Scanned>;
  close(): void;
}

/** What the threads say to each other. */
export interface ScanRequest {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly isLast: boolean;
}
export interface ScanFailure {
  readonly message: string;
}
export type ScanReply = Scanned | ScanFailure;

/** The scan itself, which both kinds of scanning run. */
export class CheckpointScan {
  readonly #scanner: GzipScanner;
  #starts: BlockStart[] = [];

  constructor(spanSize: number) {
    const rule = new SpanRule(spanSize);
    this.#scanner = new GzipScanner((start) => {
      if (rule.begins(start)) this.#starts.push(start);
    });
  }

  step({ bytes, isLast }: ScanRequest): Scanned {
    this.#scanner.push(bytes);
    if (isLast) this.#scanner.finish();
    const starts = this.#starts;
    this.#starts = [];
    return { bytes, starts, input: this.#scanner.input };
  }
}

class InlineScanning implements Scanning {
  readonly #scan: CheckpointScan;

  constructor(spanSize: number) {
    this.#scan = new CheckpointScan(spanSize);
  }

  scan(bytes: Uint8Array<ArrayBuffer>): Promise<Scanned> {
    return Promise.resolve().then(() => this.#scan.step({ bytes, isLast: false }));
  }

  finish(): Promise<Scanned> {
    return Promise.resolve().then(() => this.#scan.step({ bytes: new Uint8Array(0), isLast: true }));
  }

  close(): void {
    // Nothing is held.
  }
}

interface Waiting {
  readonly resolve: (scanned: Scanned) => void;
  readonly reject: (error: Error) => void;
}

class ThreadScanning implements Scanning {
  readonly #worker: Worker;
  /** Replies come in the order of requests. */
  readonly #waiting: Waiting[] = [];
  #failure: Error | undefined;

  constructor(spanSize: number) {
    this.#worker = new Worker(new URL('./scan-worker.js', import.meta.url), { workerData: { spanSize } });
    this.#worker.on('message', (reply: ScanReply) => {
      if ('message' in reply) this.#fail(new LayercacheError('COMPRESSION_INVALID', reply.message));
      else this.#waiting.shift()?.resolve(reply);
    });
    this.#worker.on('error', (error) => {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    });
    this.#worker.on('exit', () => {
      this.#fail(
        new LayercacheError('ABORTED', 'the layer was not scanned to its end: its thread was stopped'),
      );
    });
  }

  scan(bytes: Uint8Array<ArrayBuffer>): Promise<Scanned> {
    return this.#request({ bytes, isLast: false });
  }

  finish(): Promise<Scanned> {
    return this.#request({ bytes: new Uint8Array(0), isLast: true });
  }

  close(): void {
    void this.#worker.terminate();
  }

  #request(request: ScanRequest): Promise<Scanned> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(request, [request.bytes.buffer]);
    });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}

/** @param inThread whether to scan in a thread of its own, which takes some 30 ms to start */
export function startScanning(spanSize: number, inThread: boolean): Scanning {
  return inThread ? new ThreadScanning(spanSize) : new InlineScanning(spanSize);
}

export function scanFailure(error: unknown): ScanFailure {
  if (isLayercacheError(error, 'COMPRESSION_INVALID')) return { message: error.message };
  throw error;
}
