import { errorFields, type Logger } from '@layercache/oci';

/** Pushes in the background, one push at a time: what changes during one goes with the next. */
export class WriteBack {
  readonly #push: () => Promise<unknown>;
  readonly #logger: Logger;
  #wanted = false;
  #running: Promise<void> | undefined;

  constructor(push: () => Promise<unknown>, logger: Logger) {
    this.#push = push;
    this.#logger = logger;
  }

  start(): void {
    this.#wanted = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Resolves when everything has been pushed, or could not be: that is logged, and nothing here is lost. */
  async end(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#wanted) {
      this.#wanted = false;
      try {
        await this.#push();
      } catch (error) {
        this.#logger.warn({ message: 'not written back', ...errorFields(error) });
      }
    }
  }
}
