import { Readable } from 'node:stream';
import { Header } from 'tar';
import { writeWholeFile } from './whole-file.js';

const BLOCK = 512;

export interface TarMember {
  /** At most 100 bytes: what an image archive needs, without extended headers. */
  readonly name: string;
  readonly size: number;
  read(): Readable | Promise<Readable>;
}

/** Writes a tar archive, which appears when it is whole. */
export async function writeTar(
  path: string,
  members: AsyncIterable<TarMember> | Iterable<TarMember>,
  signal: AbortSignal | undefined,
): Promise<void> {
  await writeWholeFile(path, archive(members), signal);
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
