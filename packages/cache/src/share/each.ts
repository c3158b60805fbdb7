import pLimit from 'p-limit';
import { throwIfAborted } from '@layercache/oci';

/** Does the same to all, some at a time. The first failure stops what has not begun; nothing runs on after it. */
export async function eachOf<T>(
  items: readonly T[],
  options: { readonly concurrency: number; readonly signal?: AbortSignal | undefined },
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const limit = pLimit(options.concurrency);
  let failure: { readonly error: unknown } | undefined;
  await Promise.all(
    items.map((item) =>
      limit(async () => {
        if (failure !== undefined) return;
        try {
          throwIfAborted(options.signal);
          await work(item);
        } catch (error) {
          failure ??= { error };
        }
      }),
    ),
  );
  if (failure !== undefined) throw failure.error as Error;
}
