import { abortedError, throwIfAborted } from '@layercache/oci';

/** The items of a source until the signal fires, also while the source keeps us waiting. */
export async function* abortable(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  if (signal === undefined) {
    yield* source;
    return;
  }
  const iterator =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let stop: (() => void) | undefined;
  const onAbort = (): void => stop?.();
  signal.addEventListener('abort', onAbort);
  let finished = false;
  try {
    for (;;) {
      throwIfAborted(signal);
      const result = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        stop = () => {
          reject(abortedError(signal));
        };
        Promise.resolve(iterator.next()).then(resolve, reject);
      });
      if (result.done === true) {
        finished = true;
        return;
      }
      yield result.value;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    // Not awaited: a source that is stuck does not answer.
    if (!finished) void Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}

/** Waits, unless the signal fires first. */
export async function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(abortedError(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
