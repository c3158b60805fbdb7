import { createReadStream } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import { Header, Pax } from 'tar';
import { LayercacheError } from '@layercache/oci';

const BLOCK = 512;
/** Bytes. A pax header or a long name larger than this is not one that an image archive needs. */
const MAX_EXTENSION = 1024 * 1024;
const MAX_ENTRIES = 1_000_000;

interface TarFile {
  /** Offset of the first byte of content in the archive. */
  readonly offset: number;
  readonly size: number;
}

/**
 * Where the files of an uncompressed tar archive are, so that any of them can be read by itself. Only headers
 * are read, whatever the size of the archive.
 */
export class TarIndex {
  readonly path: string;
  readonly #files: ReadonlyMap<string, TarFile>;

  private constructor(path: string, files: ReadonlyMap<string, TarFile>) {
    this.path = path;
    this.#files = files;
  }

  /** @throws LayercacheError `ARCHIVE_INVALID`, `NOT_FOUND` */
  static async open(path: string): Promise<TarIndex> {
    const handle = await open(path).catch((cause: unknown) => {
      throw new LayercacheError('NOT_FOUND', `archive ${path} cannot be opened: ${String(cause)}`, { cause });
    });
    try {
      return new TarIndex(path, await readFiles(handle, path));
    } finally {
      await handle.close();
    }
  }

  names(): IterableIterator<string> {
    return this.#files.keys();
  }

  /** Bytes, or undefined when there is no such file. */
  size(name: string): number | undefined {
    return this.#files.get(name)?.size;
  }

  /** From byte `start` of the file to its end. */
  read(name: string, start = 0, signal?: AbortSignal): Readable {
    const file = this.#file(name);
    // `end` is included, so an empty range cannot be said: read nothing at an offset that exists.
    return createReadStream(this.path, {
      start: file.offset + start,
      end: Math.max(file.offset + file.size - 1, file.offset + start - 1),
      highWaterMark: 1 << 20,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  /** The first bytes of a file: at most `length`, fewer when it is shorter. */
  async readStart(name: string, length: number): Promise<Buffer> {
    const { offset, size } = this.#file(name);
    const handle = await open(this.path);
    try {
      const bytes = Buffer.alloc(Math.min(length, size));
      await readExactly(handle, bytes, offset, this.path);
      return bytes;
    } finally {
      await handle.close();
    }
  }

  /** A small file as a whole. */
  async readBytes(name: string, maxSize: number): Promise<Uint8Array> {
    const { size } = this.#file(name);
    if (size > maxSize) {
      throw new LayercacheError(
        'ARCHIVE_INVALID',
        `${this.path}: ${name} has ${size} bytes; the limit is ${maxSize}`,
      );
    }
    if (size === 0) return new Uint8Array(0);
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.read(name) as AsyncIterable<Uint8Array>) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  #file(name: string): TarFile {
    const file = this.#files.get(name);
    if (file !== undefined) return file;
    throw new LayercacheError('NOT_FOUND', `${this.path} has no file ${name}`);
  }
}

async function readFiles(handle: FileHandle, path: string): Promise<Map<string, TarFile>> {
  const files = new Map<string, TarFile>();
  const links = new Map<string, string>();
  const { size: end } = await handle.stat();
  const block = Buffer.alloc(BLOCK);
  let local: Pax | undefined;
  let longName: string | undefined;
  let longLink: string | undefined;
  let offset = 0;
  while (offset + BLOCK <= end) {
    await readExactly(handle, block, offset, path);
    const header = new Header(block);
    if (header.nullBlock) break;
    if (!header.cksumValid) throw notTar(path, offset, block);
    const size = local?.size ?? header.size ?? 0;
    const content = offset + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0 || content + size > end) {
      throw new LayercacheError(
        'ARCHIVE_INVALID',
        `${path} is truncated: an entry at byte ${offset} goes past its end`,
      );
    }
    offset = content + Math.ceil(size / BLOCK) * BLOCK;
    switch (header.type) {
      case 'ExtendedHeader':
        local = Pax.parse(await readExtension(handle, content, size, path), local, false);
        continue;
      case 'GlobalExtendedHeader':
        continue;
      case 'NextFileHasLongPath':
        longName = await readExtension(handle, content, size, path);
        continue;
      case 'NextFileHasLongLinkpath':
        longLink = await readExtension(handle, content, size, path);
        continue;
      case 'File':
      case 'OldFile':
      case 'ContiguousFile':
      case 'SymbolicLink':
      case 'Link': {
        const name = cleanName(local?.path ?? longName ?? header.path ?? '');
        const target = local?.linkpath ?? longLink ?? header.linkpath ?? '';
        if (header.type === 'SymbolicLink') links.set(name, posix.join(posix.dirname(name), target));
        else if (header.type === 'Link') links.set(name, cleanName(target));
        else files.set(name, { offset: content, size });
        if (files.size + links.size > MAX_ENTRIES) {
          throw new LayercacheError('ARCHIVE_INVALID', `${path} has more than ${MAX_ENTRIES} entries`);
        }
      }
    }
    local = longName = longLink = undefined;
  }
  // `docker save` of old wrote a layer that several images share once, and links to it.
  for (const [name, target] of links) {
    const file = files.get(target) ?? files.get(links.get(target) ?? '');
    if (file !== undefined && !files.has(name)) files.set(name, file);
  }
  return files;
}

async function readExtension(
  handle: FileHandle,
  offset: number,
  size: number,
  path: string,
): Promise<string> {
  if (size > MAX_EXTENSION) {
    throw new LayercacheError(
      'ARCHIVE_INVALID',
      `${path}: a header of ${size} bytes at byte ${offset} is too large`,
    );
  }
  const bytes = Buffer.alloc(size);
  await readExactly(handle, bytes, offset, path);
  return bytes.toString('utf8').replace(/\0+$/, '');
}

async function readExactly(handle: FileHandle, into: Buffer, offset: number, path: string): Promise<void> {
  const { bytesRead } = await handle.read(into, 0, into.length, offset);
  if (bytesRead !== into.length) {
    throw new LayercacheError('ARCHIVE_INVALID', `${path} is truncated at byte ${offset + bytesRead}`);
  }
}

function notTar(path: string, offset: number, block: Buffer): LayercacheError {
  const gzip = offset === 0 && block[0] === 0x1f && block[1] === 0x8b;
  const what = gzip
    ? 'is compressed with gzip: decompress it first'
    : `is not a tar archive: bad header at byte ${offset}`;
  return new LayercacheError('ARCHIVE_INVALID', `${path} ${what}`);
}

function cleanName(name: string): string {
  return posix.normalize(name).replace(/^\.?\/+/, '');
}
