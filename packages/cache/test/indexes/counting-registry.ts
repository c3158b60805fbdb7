import {
  MemoryRegistry,
  RegistryClient,
  createRegistryServer,
  memorySpools,
  type Registry,
  type RegistryServer,
  type RequestHandler,
} from '@layercache/registry';

/** What a request of a blob was answered with. */
export interface BlobAnswer {
  readonly digest: string;
  readonly method: string;
  /** Bytes that were sent, the head of the answer included. */
  readonly bytes: () => number;
}

/** A registry behind HTTP on this machine, which writes down what is asked of it. */
export class CountingRegistry {
  readonly memory = new MemoryRegistry();
  readonly answers: BlobAnswer[] = [];
  readonly #server: RegistryServer;
  #client: Registry | undefined;

  constructor(wrap: (handler: RequestHandler) => RequestHandler = (handler) => handler) {
    const counting = (handler: RequestHandler): RequestHandler => {
      const inner = wrap(handler);
      return (request, response) => {
        const digest = /\/blobs\/(sha256:[0-9a-f]+)/.exec(request.url ?? '')?.[1];
        if (digest !== undefined) {
          const { socket, method = '' } = request;
          const before = socket.bytesWritten;
          let sent: number | undefined;
          response.once('close', () => (sent = socket.bytesWritten - before));
          this.answers.push({ digest, method, bytes: () => sent ?? socket.bytesWritten - before });
        }
        inner(request, response);
      };
    };
    this.#server = createRegistryServer(this.memory, { openSpool: memorySpools(), wrap: counting });
  }

  async start(): Promise<void> {
    await this.#server.listen({ host: '127.0.0.1', port: 0 });
    this.#client = new RegistryClient(new URL(this.#server.url).host);
  }

  /** Through HTTP. */
  get client(): Registry {
    if (this.#client === undefined) throw new TypeError('the registry was not started');
    return this.#client;
  }

  async stop(): Promise<void> {
    await this.#server.close();
  }

  /** Bytes of one blob that were sent, and in how many answers. */
  sent(digest: string): { readonly requests: number; readonly bytes: number } {
    const answers = this.answers.filter((answer) => answer.digest === digest && answer.method === 'GET');
    return { requests: answers.length, bytes: answers.reduce((sum, { bytes }) => sum + bytes(), 0) };
  }
}
