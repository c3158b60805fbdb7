import { untilAborted } from './abort.js';

/** Bytes of a layer, in any portions. */
export type ByteSource = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** A layer that can be read anywhere: a file, or a blob that a registry serves by ranges. */
export interface ByteReader {
  /** Bytes in all. */
  readonly size: number;
  /** The bytes from `start` up to and without `end`. */
  read(start: number, end: number, signal?: AbortSignal): ByteSource;
}

/** The portions of a source, abandoned as soon as the signal fires even if it never brings another. */
export async function* portions(
  source: ByteSource,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const iterator =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let isDone = false;
  try {
    for (;;) {
      const next = await untilAborted(Promise.resolve(iterator.next()), signal);
      if (next.done === true) {
        isDone = true;
        return;
      }
      yield next.value;
    }
  } finally {
    // Not awaited: a source that hangs would not let go of us.
    if (!isDone) void Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}

/** The same bytes in new buffers of `size`, which the receiver owns; only the last is smaller. */
export async function* batches(
  source: ByteSource,
  size: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let batch = new Uint8Array(size);
  let filled = 0;
  for await (const portion of portions(source, signal)) {
    for (let at = 0; at < portion.length;) {
      const part = portion.subarray(at, at + size - filled);
      batch.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < size) continue;
      yield batch;
      batch = new Uint8Array(size);
      filled = 0;
    }
  }
  if (filled > 0) yield batch.subarray(0, filled);
}

/**
 * Fills a buffer from a source, as far as both go.
 *
 * @returns how many bytes the source has, be it more than there is room for
 */
export async function fill(
  buffer: Uint8Array,
  source: ByteSource,
  signal: AbortSignal | undefined,
): Promise<number> {
  let size = 0;
  for await (const portion of portions(source, signal)) {
    if (size < buffer.length) buffer.set(portion.subarray(0, buffer.length - size), size);
    size += portion.length;
    if (size > buffer.length) break;
  }
  return size;
}
