import { randomUUID } from 'node:crypto';
import { LayercacheError } from '@layercache/oci';
import { invalid } from './route.js';
import type { OpenSpool, UploadSpool } from './upload-spool.js';

export interface UploadSessionsOptions {
  readonly openSpool: OpenSpool;
  /** Milliseconds after which an upload that nobody touches is given up. */
  readonly idle: number;
  /** Uploads that may be open at one time. */
  readonly limit: number;
}

/** One upload between its POST and its PUT. */
export class UploadSession {
  readonly id = randomUUID();
  readonly repository: string;
  readonly #openSpool: OpenSpool;
  #spool: UploadSpool | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(repository: string, openSpool: OpenSpool) {
    this.repository = repository;
    this.#openSpool = openSpool;
  }

  get location(): string {
    return `/v2/${this.repository}/blobs/uploads/${this.id}`;
  }

  /** Bytes received so far. */
  get size(): number {
    return this.#spool?.size ?? 0;
  }

  /** Requests that change an upload take turns: one may still be failing when its client has sent the next. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async append(source: AsyncIterable<Uint8Array>): Promise<void> {
    // Opened for the first byte: an upload in one piece never needs it.
    this.#spool ??= await this.#openSpool();
    await this.#spool.append(source);
  }

  read(): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
    return this.#spool?.read() ?? [];
  }

  async discard(): Promise<void> {
    const spool = this.#spool;
    this.#spool = undefined;
    await spool?.discard();
  }
}

/** The uploads that are open. */
export class UploadSessions {
  readonly #options: UploadSessionsOptions;
  readonly #sessions = new Map<string, { readonly session: UploadSession; readonly timer: NodeJS.Timeout }>();

  readonly #ending = new Set<Promise<void>>();

  constructor(options: UploadSessionsOptions) {
    this.#options = options;
  }

  /** @throws RegistryError with status 429 when too many are open */
  start(repository: string): UploadSession {
    if (this.#sessions.size >= this.#options.limit) {
      throw invalid('TOOMANYREQUESTS', `${this.#sessions.size} uploads are open: try again later`, 429);
    }
    const session = new UploadSession(repository, this.#options.openSpool);
    const timer = setTimeout(() => void this.end(session).catch(() => undefined), this.#options.idle);
    timer.unref();
    this.#sessions.set(session.id, { session, timer });
    return session;
  }

  /** @throws LayercacheError `NOT_FOUND` */
  find(repository: string, id: string): UploadSession {
    const found = this.#sessions.get(id);
    if (found?.session.repository !== repository) {
      throw new LayercacheError(
        'NOT_FOUND',
        `${repository} has no upload ${JSON.stringify(id.slice(0, 100))}: it ended, or was given up`,
      );
    }
    found.timer.refresh();
    return found.session;
  }

  /** Forgets an upload and what it received. */
  async end(session: UploadSession): Promise<void> {
    const found = this.#sessions.get(session.id);
    if (found === undefined) return;
    clearTimeout(found.timer);
    this.#sessions.delete(session.id);
    const ending = session.inTurn(() => session.discard());
    this.#ending.add(ending);
    await ending.finally(() => this.#ending.delete(ending));
  }

  async endAll(): Promise<void> {
    await Promise.all([...this.#sessions.values()].map(({ session }) => this.end(session)));
    await Promise.all(this.#ending);
  }
}
