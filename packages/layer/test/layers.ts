import { gzipSync } from 'node:zlib';
import type { ByteReader } from '../src/bytes.js';
import { compressible } from './deflate/gzip-streams.js';
import { tar, type EntryOptions } from './tar/tar-builder.js';

/** A layer in memory that remembers which of its bytes were read. */
export class MemoryLayer implements ByteReader {
  readonly reads: { readonly start: number; readonly end: number }[] = [];
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get size(): number {
    return this.#bytes.length;
  }

  *read(start: number, end: number): Generator<Uint8Array> {
    this.reads.push({ start, end });
    // In portions, as from a socket.
    for (let at = start; at < end; at += 50_000) yield this.#bytes.slice(at, Math.min(end, at + 50_000));
  }
}

/** A tar of some files, a good megabyte in all. */
export function someTar(): Buffer {
  const files = Array.from({ length: 40 }, (_, index): EntryOptions => {
    const data = compressible(index % 7 === 0 ? 150_000 : 3000 + index * 411, index + 1);
    return { name: `dir/file-${index}`, data, mtime: 1_600_000_000 + index };
  });
  return tar({ name: 'dir/' }, ...files, { name: 'empty' });
}

export function* portionsOf(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

export function membersOf(bytes: Buffer, count: number): Buffer {
  const size = Math.ceil(bytes.length / count);
  return Buffer.concat([...portionsOf(bytes, size)].map((part) => gzipSync(part)));
}
