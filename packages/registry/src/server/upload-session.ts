import { randomUUID } from 'node:crypto';
import type { ByteSource } from '../registry.js';
import type { AppendOptions, OpenSpool, UploadSpool } from './upload-spool.js';

/** One upload between its POST and its PUT. */
export class UploadSession {
  readonly id = randomUUID();
  readonly repository: string;
  /** The address of the client that began it. */
  readonly client: string;
  readonly #openSpool: OpenSpool;
  #spool: UploadSpool | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #turns = 0;

  constructor(repository: string, client: string, openSpool: OpenSpool) {
    this.repository = repository;
    this.client = client;
    this.#openSpool = openSpool;
  }

  get location(): string {
    return `/v2/${this.repository}/blobs/uploads/${this.id}`;
  }

  /** Bytes received so far. */
  get size(): number {
    return this.#spool?.size ?? 0;
  }

  /** Whether a request works on it, or waits to. */
  get busy(): boolean {
    return this.#turns > 0;
  }

  /** All bytes received so far. */
  get source(): ByteSource {
    return this.#spool?.source ?? ((): Uint8Array[] => []);
  }

  /** Requests that change an upload take turns: one may still be failing when its client has sent the next. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#turns++;
    try {
      const turn = this.#last.then(work, work);
      this.#last = turn.catch(() => undefined);
      return await turn;
    } finally {
      this.#turns--;
    }
  }

  async append(bytes: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<void> {
    // Opened for the first byte: an upload in one piece never needs it.
    if (this.#spool === undefined && options.length === 0) return;
    this.#spool ??= await this.#openSpool();
    await this.#spool.append(bytes, options);
  }

  async discard(): Promise<void> {
    const spool = this.#spool;
    this.#spool = undefined;
    await spool?.discard();
  }
}
