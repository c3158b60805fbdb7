import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Header } from 'tar';
import { LayercacheError, abortedError } from '@layercache/oci';

const BLOCK = 512;

export interface TarMember {
  /** At most 100 bytes: what an image archive needs, without extended headers. */
  readonly name: string;
  readonly size: number;
  read(): Readable | Promise<Readable>;
}

/** Writes a tar archive beside its final place and moves it there when it is whole. */
export async function writeTar(
  path: string,
  members: AsyncIterable<TarMember> | Iterable<TarMember>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const temporary = `${path}.${process.pid}.partial`;
  try {
    await pipeline(Readable.from(archive(members), { objectMode: false }), createWriteStream(temporary), {
      ...(signal === undefined ? {} : { signal }),
    });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    if (error instanceof LayercacheError) throw error;
    if (signal?.aborted === true) throw abortedError(signal);
    throw new LayercacheError('STORAGE', `archive ${path} cannot be written: ${String(error)}`, {
      cause: error,
    });
  }
}

async function* archive(members: AsyncIterable<TarMember> | Iterable<TarMember>): AsyncGenerator<Uint8Array> {
  for await (const member of members) {
    const { name, size } = member;
    const header = Buffer.alloc(BLOCK);
    // The same image gives the same archive: no times, no owners.
    new Header({ path: name, size, type: 'File', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0) }).encode(
      header,
    );
    yield header;
    yield* (await member.read()) as AsyncIterable<Uint8Array>;
    if (size % BLOCK !== 0) yield Buffer.alloc(BLOCK - (size % BLOCK));
  }
  yield Buffer.alloc(2 * BLOCK);
}

export function documentMember(name: string, document: unknown): TarMember {
  const bytes = Buffer.from(JSON.stringify(document));
  return { name, size: bytes.length, read: () => Readable.from([bytes]) };
}
