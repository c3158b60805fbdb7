import { LayercacheError } from '@layercache/oci';
import { RegistryError } from '../registry-error.js';
import { UploadSession } from './upload-session.js';
import type { OpenSpool } from './upload-spool.js';

export interface UploadSessionsOptions {
  readonly openSpool: OpenSpool;
  /** Milliseconds after which an upload that nobody touches is given up. */
  readonly idle: number;
  /** Uploads that may be open at one time. */
  readonly limit: number;
  /** Uploads that one client may have open at one time. */
  readonly limitPerClient: number;
}

interface Kept {
  readonly session: UploadSession;
  readonly timer: NodeJS.Timeout;
}

/** How long a client is asked to wait while all uploads are busy, in milliseconds. */
const RETRY_AFTER = 5000;

/**
 * The uploads that are open. Their number is bounded, and still nobody can keep others from beginning one: the
 * upload that has been idle for longest is given up for a new one, those without a byte before the others.
 */
export class UploadSessions {
  readonly #options: UploadSessionsOptions;
  /** In the order of their last use. */
  readonly #sessions = new Map<string, Kept>();
  readonly #perClient = new Map<string, number>();
  readonly #ending = new Set<Promise<void>>();

  constructor(options: UploadSessionsOptions) {
    this.#options = options;
  }

  /**
   * @param client its address
   * @throws RegistryError with status 429 when requests are at work on all that may be open
   */
  start(repository: string, client: string): UploadSession {
    this.#makeRoom(client);
    const session = new UploadSession(repository, client, this.#options.openSpool);
    const timer = setTimeout(() => {
      // A blob takes as long as it takes.
      if (session.busy) timer.refresh();
      else this.#giveUp(session);
    }, this.#options.idle);
    timer.unref();
    this.#sessions.set(session.id, { session, timer });
    this.#perClient.set(client, this.#countOf(client) + 1);
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
    this.#sessions.delete(id);
    this.#sessions.set(id, found);
    return found.session;
  }

  /** Forgets an upload and the bytes it received. */
  async end(session: UploadSession): Promise<void> {
    const found = this.#sessions.get(session.id);
    if (found === undefined) return;
    clearTimeout(found.timer);
    this.#sessions.delete(session.id);
    const left = this.#countOf(session.client) - 1;
    if (left > 0) this.#perClient.set(session.client, left);
    else this.#perClient.delete(session.client);
    const ending = session.inTurn(() => session.discard());
    this.#ending.add(ending);
    await ending.finally(() => this.#ending.delete(ending));
  }

  async endAll(): Promise<void> {
    await Promise.all(Array.from(this.#sessions.values(), ({ session }) => this.end(session)));
    await Promise.all(this.#ending);
  }

  /** @throws RegistryError when no upload can be given up */
  #makeRoom(client: string): void {
    const { limit, limitPerClient } = this.#options;
    if (this.#countOf(client) >= limitPerClient) {
      const own = this.#mostIdle((session) => session.client === client);
      if (own === undefined) throw tooMany(`this client has ${limitPerClient} uploads under way`);
      this.#giveUp(own);
    }
    if (this.#sessions.size >= limit) {
      const greediest = this.#greediest();
      const idle =
        this.#mostIdle((session) => session.size === 0 || session.client === greediest) ??
        this.#mostIdle(() => true);
      if (idle === undefined) throw tooMany(`${limit} uploads are under way`);
      this.#giveUp(idle);
    }
  }

  /** The upload that no request has touched for longest: one without bytes, if there is one. */
  #mostIdle(mayGo: (session: UploadSession) => boolean): UploadSession | undefined {
    let longest: UploadSession | undefined;
    for (const { session } of this.#sessions.values()) {
      if (session.busy || !mayGo(session)) continue;
      if (session.size === 0) return session;
      longest ??= session;
    }
    return longest;
  }

  #giveUp(session: UploadSession): void {
    void this.end(session).catch(() => undefined);
  }

  #countOf(client: string): number {
    return this.#perClient.get(client) ?? 0;
  }

  /** The client that has most of the uploads. */
  #greediest(): string | undefined {
    let most = 0;
    let greediest: string | undefined;
    for (const [client, count] of this.#perClient) {
      if (count <= most) continue;
      most = count;
      greediest = client;
    }
    return greediest;
  }
}

function tooMany(what: string): RegistryError {
  const message = `${what}, as many as there may be: try again later`;
  return new RegistryError('REGISTRY', message, {
    status: 429,
    reported: [{ code: 'TOOMANYREQUESTS', message }],
    retryAfter: RETRY_AFTER,
  });
}
