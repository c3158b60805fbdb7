import { LayercacheError } from '@layercache/oci';
import { RegistryError, type Registry } from '@layercache/registry';
import type { SimulatedProcess } from './simulated-time.js';

/** What a registry of a simulation does not do. */
export interface Refusals {
  readonly tags?: boolean;
  /** Of tags and manifests: 405, as of distribution unless it is told to. */
  readonly deletes?: boolean;
}

export interface ConnectionOptions {
  /** Milliseconds that the next way to the registry, or back, takes. */
  readonly delay: (request: string) => number;
  readonly refuses?: Refusals;
}

/**
 * A registry as one process of a simulation sees it: each request takes its time to get there, takes effect at one
 * moment, and takes its time to be answered. A request whose process has ended takes effect all the same.
 */
export function connection(
  registry: Registry,
  process: SimulatedProcess,
  { delay, refuses = {} }: ConnectionOptions,
): Registry {
  const refusal = (name: string): Error | undefined => {
    if (name === 'tags' && refuses.tags === true)
      return new LayercacheError('NOT_FOUND', 'there is no list of tags');
    if (name === 'deleteManifest' && refuses.deletes === true)
      return new RegistryError('REGISTRY', 'nothing is deleted here', { status: 405, reported: [] });
    return undefined;
  };
  const request = async (
    name: string,
    work: () => Promise<unknown>,
    signal?: AbortSignal,
  ): Promise<unknown> => {
    let answer: Promise<unknown> = Promise.resolve();
    await process.wait(delay(name), signal, () => {
      const error = refusal(name);
      answer = error === undefined ? work() : Promise.reject(error);
      answer.catch(() => undefined);
    });
    await process.wait(delay(name), signal);
    return answer;
  };
  const signalIn = (args: readonly unknown[]): AbortSignal | undefined =>
    args
      .map((arg) => (typeof arg === 'object' && arg !== null && 'signal' in arg ? arg.signal : undefined))
      .find((signal) => signal instanceof AbortSignal);
  return new Proxy(registry, {
    get(target, name, receiver) {
      const value: unknown = Reflect.get(target, name, receiver);
      if (typeof value !== 'function' || typeof name !== 'string') return value;
      const call = (args: unknown[]): unknown => Reflect.apply(value, target, args) as unknown;
      if (name === 'tags') {
        return async function* (...args: unknown[]): AsyncGenerator<string> {
          const list = async (): Promise<string[]> => {
            const tags: string[] = [];
            for await (const tag of call(args) as AsyncIterable<string>) tags.push(tag);
            return tags;
          };
          yield* (await request(name, list, signalIn(args))) as string[];
        };
      }
      return (...args: unknown[]): unknown =>
        request(name, () => Promise.resolve(call(args)), signalIn(args));
    },
  });
}

/** The registry as a tool sees it that asks for one tag and knows of no others. */
export function withoutTags(registry: Registry): Registry {
  return new Proxy(registry, {
    get(target, name, receiver) {
      if (name === 'tags') {
        return () => {
          throw new LayercacheError('NOT_FOUND', 'there is no list of tags');
        };
      }
      const value: unknown = Reflect.get(target, name, receiver);
      return typeof value === 'function'
        ? (...args: unknown[]): unknown => Reflect.apply(value, target, args) as unknown
        : value;
    },
  });
}
