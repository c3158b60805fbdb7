import { homedir } from 'node:os';
import { join } from 'node:path';
import { LayerCache } from '@layercache/cache';
import { shortDigest, type Logger } from '@layercache/oci';
import { RegistryClient, type RetryOptions } from '@layercache/registry';
import type { Command } from 'commander';
import { parseSize } from './quantity.js';
import { stderrLogger, type LogLevel } from './logger.js';
import { createOutput, formatBytes, type Output } from './output.js';
import { createProgress, createStepProgress, type Progress, type StepProgress } from './progress.js';
import { isStderrTerminal } from './terminal.js';

/** The options before the command, which every command has. */
interface GlobalOptions {
  readonly cache?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly logLevel: LogLevel;
  readonly plainHttp?: boolean;
  readonly limit?: string;
}

/** How a command wants its cache. */
export interface CacheOptions {
  readonly create?: boolean;
  /** Make files of the layout again that are missing or broken. */
  readonly repair?: boolean;
  readonly staleIfError?: boolean;
  readonly retry?: RetryOptions;
}

/** What a command works with: one run of the program. */
export class Session {
  readonly output: Output;
  readonly logger: Logger;
  /** Fires on Ctrl-C and on a polite kill: what is whole stays, what is not is resumed next time. */
  readonly signal: AbortSignal;
  readonly #options: GlobalOptions;
  readonly #clients = new Map<string, RegistryClient>();

  constructor(command: Command, signal: AbortSignal) {
    this.#options = command.optsWithGlobals<GlobalOptions>();
    const { json = false, quiet = false, logLevel } = this.#options;
    this.output = createOutput({ json, quiet });
    this.logger = stderrLogger(quiet && logLevel === 'warn' ? 'error' : logLevel, json);
    this.signal = signal;
  }

  get cacheDir(): string {
    return this.#options.cache ?? process.env.LAYERCACHE_DIR ?? defaultCacheDir();
  }

  /** Opens the cache for as long as `work` takes. */
  async withCache<T>(work: (cache: LayerCache) => Promise<T>, options: CacheOptions = {}): Promise<T> {
    const maxSize = this.limit;
    const cache = await LayerCache.open(this.cacheDir, {
      create: options.create ?? true,
      repair: options.repair ?? false,
      logger: this.logger,
      registry: (host) => this.client(host, options.retry),
      staleIfError: options.staleIfError ?? false,
      limits: maxSize === undefined ? undefined : { maxSize },
      onEvicted: ({ kind, names, digest, bytes }) => {
        const what = names.length === 0 ? `${kind} ${shortDigest(digest)}` : names.join(', ');
        this.output.note(`evicted ${what} (${formatBytes(bytes)}) to stay within the limit`);
      },
    });
    try {
      return await work(cache);
    } finally {
      await cache.close();
    }
  }

  /** Bytes. A limit holds in every process that has it, so the variable is the way to give it for good. */
  get limit(): number | undefined {
    const { limit } = this.#options;
    if (limit !== undefined) return parseSize(limit, '--limit');
    const variable = process.env.LAYERCACHE_LIMIT ?? '';
    return variable === '' ? undefined : parseSize(variable, 'LAYERCACHE_LIMIT');
  }

  client(host: string, retry?: RetryOptions): RegistryClient {
    const client =
      this.#clients.get(host) ??
      new RegistryClient(host, {
        logger: this.logger,
        ...(retry === undefined ? {} : { retry }),
        ...(this.#options.plainHttp === true ? { plainHttp: true } : {}),
      });
    this.#clients.set(host, client);
    return client;
  }

  /** Bars on a terminal, nothing in a pipe. */
  progress(): Progress {
    return createProgress(this.#showsProgress());
  }

  stepProgress(): StepProgress {
    return createStepProgress(this.#showsProgress());
  }

  #showsProgress(): boolean {
    const { json = false, quiet = false } = this.#options;
    return isStderrTerminal() && !quiet && !json;
  }
}

function defaultCacheDir(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'layercache');
}
