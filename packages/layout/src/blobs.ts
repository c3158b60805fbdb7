import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import {
  Digester,
  IntegrityError,
  LayercacheError,
  abortedError,
  digestAlgorithm,
  digestHex,
  parseDigest,
  throwIfAborted,
  type Digest,
  type DigestAlgorithm,
} from '@layercache/oci';
import { abortable, delay } from './abort.js';
import { BlobFile } from './blob-file.js';
import { claimFile, type Claim } from './claim.js';
import { isSystemError, storageError, syncFolder, writeFully, type FileSystem } from './file-system.js';
import { Pins } from './pins.js';
import type { Room } from './space/space.js';
import type { Temp, TempFiles } from './temp-files.js';

export interface ReadOptions {
  /** First byte. Default: 0. */
  readonly start?: number;
  /** The byte after the last. Default, and at most: the size of the blob. */
  readonly end?: number;
  readonly signal?: AbortSignal | undefined;
  /** Hash the bytes and fail before the end when they are not the digest's. Default: for whole reads. */
  readonly verify?: boolean;
  /** Whether this counts as a use of the blob. Default: true; false for whoever only looks after the cache. */
  readonly touch?: boolean;
}

export interface ReadDocumentOptions extends Pick<ReadOptions, 'signal' | 'touch'> {
  /** Bytes. Default: 64 MiB. */
  readonly maxSize?: number;
}

export interface WriteOptions {
  /** What the bytes must hash to. */
  readonly digest?: Digest;
  /** How many bytes there must be. */
  readonly size?: number;
  /** Hash to name the blob by, where `digest` does not say. Default: sha256. */
  readonly algorithm?: DigestAlgorithm;
  /** It can be made again from what is here, so only what can be, too, makes room for it. Default: false. */
  readonly derived?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface WrittenBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export type Bytes = Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** What blobs have to do with entries. */
export interface BlobOwner {
  /** Is told that the file with this inode was read to its end, and that its bytes are not the digest's. Never rejects. */
  readonly onCorrupt: (digest: Digest, ino: bigint) => Promise<void>;
  /** Is told the size of a blob whose bytes are right. Never rejects. */
  readonly onSize: (digest: Digest, size: number) => Promise<void>;
  /** Bytes that a blob is said to have; undefined when nobody says so. */
  readonly expectedSize: (digest: Digest) => number | undefined;
  /** Is told the size of each blob that is new. */
  readonly onStored: (size: number) => void;
}

const READ_SIZE = 256 * 1024;
const MAX_DOCUMENT = 64 * 1024 * 1024;
/** How often to look whether a blob that is being removed is gone, in ms. */
const POLL = 5;
/** How old an access time may be, in ns: an hour, as nobody looks but by hand. */
const GRAIN = 3_600_000_000_000n;
/** The same where room is limited: within an hour all of it may be written anew, and the last used is to stay. */
const LIMITED_GRAIN = 1_000_000_000n;

/** The files below `blobs/`. A blob is written once, under its own digest, and never changed. */
export class Blobs {
  readonly #files: FileSystem;
  readonly #dir: string;
  readonly #temps: TempFiles;
  readonly #owner: BlobOwner;
  readonly #folders = new Set<string>();
  readonly #accessGrain: bigint;
  readonly pins: Pins;

  /** @param limited whether room is limited */
  constructor(files: FileSystem, dir: string, temps: TempFiles, owner: BlobOwner, limited = false) {
    this.#accessGrain = limited ? LIMITED_GRAIN : GRAIN;
    this.#files = files;
    this.#dir = dir;
    this.#temps = temps;
    this.#owner = owner;
    this.pins = new Pins(files);
  }

  /** Where the blob is, or would be. Safe by construction: only hexadecimal digits come from the digest. */
  path(digest: Digest): string {
    const checked = parseDigest(digest);
    return join(this.#dir, 'blobs', digestAlgorithm(checked), digestHex(checked));
  }

  /** Bytes; undefined when it is not here. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return Number((await this.#files.stat(this.path(digest))).size);
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
      throw storageError(error, `look for blob ${digest}`);
    }
  }

  facts(digest: Digest): { readonly size: number; readonly usedAt: Date } | undefined {
    try {
      const { size, mtimeNs } = this.#files.statSync(this.path(digest));
      return { size: Number(size), usedAt: new Date(Number(mtimeNs / 1_000_000n)) };
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
      throw storageError(error, `look for blob ${digest}`);
    }
  }

  /**
   * The file is opened when the first byte is asked for.
   *
   * @param wait false: a reader under the lock of the layout does not wait for what needs that lock
   */
  read(digest: Digest, options: ReadOptions = {}, wait = true): Readable {
    const path = this.path(digest);
    return asStream(
      this.#chunks(digest, () => this.#open(digest, path), options, wait),
      options.signal,
    );
  }

  /** As {@link read}, with the file open when it resolves: whoever removes the blob takes nothing from this reader. */
  async openToRead(digest: Digest, options: ReadOptions = {}): Promise<Readable> {
    let fd: number | undefined = await this.#open(digest, this.path(digest));
    const take = (): Promise<number> => {
      if (fd === undefined) throw new TypeError('a file is taken once');
      const taken = fd;
      fd = undefined;
      return Promise.resolve(taken);
    };
    const stream = asStream(this.#chunks(digest, take, options, true), options.signal);
    // Also when nobody ever reads.
    stream.once('close', () => {
      if (fd !== undefined) this.#files.closeSync(fd);
      fd = undefined;
    });
    return stream;
  }

  async *#chunks(
    digest: Digest,
    open: () => Promise<number>,
    options: ReadOptions,
    wait: boolean,
  ): AsyncGenerator<Buffer> {
    const whole = options.start === undefined && options.end === undefined;
    const digester = (options.verify ?? whole) && whole ? new Digester(digestAlgorithm(digest)) : undefined;
    const file: ReadFile = { digest, fd: await open(), closing: undefined };
    const { fd } = file;
    try {
      const size = await this.#noteAccess(fd, options.touch ?? true);
      if (!whole && (this.#owner.expectedSize(digest) ?? size) !== size)
        await this.#settleSize(file, size, wait);
      const end = Math.min(options.end ?? size, size);
      // One chunk behind: who counts bytes must not have them all before the digest is known to be right.
      let held: Buffer | undefined;
      for (let position = options.start ?? 0; position < end;) {
        const buffer = Buffer.allocUnsafeSlow(Math.min(READ_SIZE, end - position));
        const count = await this.#files.read(fd, buffer, position);
        if (count === 0 && digester !== undefined) break;
        if (count === 0) throw cutShort(digest, position, end);
        position += count;
        const chunk = buffer.subarray(0, count);
        if (held !== undefined) yield held;
        held = chunk;
        digester?.update(chunk);
      }
      if (digester !== undefined) await this.#check(file, digester, wait);
      if (held !== undefined) yield held;
    } catch (error) {
      throw storageError(error, `read blob ${digest}`);
    } finally {
      if (file.closing === undefined) await this.#closeRead(fd);
    }
  }

  /** What was read stays read, whatever the disk says when the file is closed; it is closed all the same. */
  async #closeRead(fd: number): Promise<void> {
    await this.#files.close(fd).catch((error: unknown) => {
      if (!isSystemError(error)) throw error;
    });
  }

  /** A blob that has another size than its entry says is hashed, to find out which of them is wrong. */
  async #settleSize(file: ReadFile, size: number, wait: boolean): Promise<void> {
    await this.#check(file, await hashFile(this.#files, file.fd, digestAlgorithm(file.digest), size), wait);
  }

  /**
   * Reads a blob to its end, and says what its bytes hash to. While `use` runs the file is open, so that no other file
   * can have its inode.
   *
   * @throws LayercacheError `NOT_FOUND`, `STORAGE`, `ABORTED`
   */
  async hash<T>(
    digest: Digest,
    signal: AbortSignal | undefined,
    use: (hashed: HashedBlob) => Promise<T>,
  ): Promise<T> {
    const fd = await this.#open(digest, this.path(digest));
    try {
      const { ino } = this.#files.fstatSync(fd);
      const digester = await hashFile(this.#files, fd, digestAlgorithm(digest), Infinity, signal);
      return await use({ digest, found: digester.digest(), size: digester.size, ino });
    } catch (error) {
      throw storageError(error, `read blob ${digest}`);
    } finally {
      await this.#closeRead(fd);
    }
  }

  async #check(file: ReadFile, digester: Digester, wait: boolean): Promise<void> {
    const { digest, fd } = file;
    const found = digester.digest();
    if (found === digest) {
      if ((this.#owner.expectedSize(digest) ?? digester.size) === digester.size) return;
      const telling = this.#owner.onSize(digest, digester.size);
      if (wait) await telling;
      return;
    }
    // The file stays open until the verdict has been dealt with: no other file can have its inode.
    const dropping = this.#owner.onCorrupt(digest, this.#files.fstatSync(fd).ino);
    file.closing = dropping.finally(() => this.#files.close(fd));
    if (wait) await file.closing;
    else file.closing.catch(() => undefined);
    throw new IntegrityError(
      'DIGEST_MISMATCH',
      `blob ${digest} is corrupt: its ${digester.size} bytes hash to ${found}; it was dropped, fetch it again`,
      { expected: digest, found },
    );
  }

  /**
   * A small document, verified.
   *
   * @throws LayercacheError `DOCUMENT_INVALID` when it is larger
   */
  async readBytes(digest: Digest, options: ReadDocumentOptions = {}, wait = true): Promise<Uint8Array> {
    const { maxSize = MAX_DOCUMENT, ...reading } = options;
    const size = await this.size(digest);
    if (size !== undefined && size > maxSize) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `blob ${digest} has ${size} bytes, too many for a document (${maxSize}); read it as a stream`,
      );
    }
    return collect(this.read(digest, reading, wait));
  }

  async #open(digest: Digest, path: string): Promise<number> {
    try {
      return await this.#files.open(path, 'r');
    } catch (error) {
      if (!isSystemError(error, 'ENOENT', 'ENOTDIR')) throw storageError(error, `read blob ${digest}`);
      throw new LayercacheError('NOT_FOUND', `blob ${digest} is not in ${this.#dir}; fetch it first`, {
        cause: error,
      });
    }
  }

  /** The file's mtime is its access time, bumped when it is older than the grain. Returns the size in bytes. */
  async #noteAccess(fd: number, touch: boolean): Promise<number> {
    const { size, mtimeNs } = this.#files.fstatSync(fd);
    const now = new Date();
    if (touch && BigInt(now.getTime()) * 1_000_000n - mtimeNs > this.#accessGrain) {
      // A reader without the right to write reads all the same.
      await this.#files.touch(fd, now).catch(() => undefined);
    }
    return Number(size);
  }

  /**
   * Stores bytes as a blob. Nothing is left behind when it fails.
   *
   * @param takeRoom called before a byte is asked for, where room is limited
   */
  async write(
    source: Bytes,
    options: WriteOptions = {},
    takeRoom?: (size: number | undefined) => Promise<Room>,
  ): Promise<WrittenBlob> {
    const { size, signal } = options;
    const digest = options.digest === undefined ? undefined : parseDigest(options.digest);
    const input = source instanceof Uint8Array ? [source] : source;
    if (digest !== undefined && size !== undefined && (await this.pinExisting(digest, size))) {
      await abandon(input);
      return { digest, size };
    }
    const digester = new Digester(digest === undefined ? options.algorithm : digestAlgorithm(digest));
    const known = source instanceof Uint8Array ? source.byteLength : size;
    let room: Room | undefined;
    let temp: Temp | undefined;
    try {
      try {
        room = await takeRoom?.(known);
      } catch (error) {
        await abandon(input);
        throw error;
      }
      temp = await this.#temps.create();
      const file = new BlobFile(this.#files, temp.fd, digester, known, room);
      try {
        for await (const chunk of abortable(input, signal)) {
          await file.append(chunk);
          if (size !== undefined && digester.size > size) break;
        }
      } finally {
        await file.flush();
      }
      const found = checkBytes(digester, { digest, size });
      await this.publish(temp.path, temp.fd, found, digester.size);
      temp = undefined;
      return { digest: found, size: digester.size };
    } catch (error) {
      throw storageError(error, `write blob ${digest ?? ''}`.trimEnd());
    } finally {
      if (temp !== undefined) await this.#temps.discard(temp);
      await this.#giveBack(room);
    }
  }

  async #giveBack(room: Room | undefined): Promise<void> {
    try {
      await room?.release();
    } catch (error) {
      throw storageError(error, `give back room in ${this.#dir}`);
    }
  }

  /** Pins a blob that is here with that size, so that it stays until its entry is put. */
  async pinExisting(digest: Digest, size: number | undefined): Promise<boolean> {
    const fd = await this.lock(digest, size);
    if (fd === undefined) return false;
    this.pins.hold(digest, fd);
    return true;
  }

  /**
   * The open file of a blob that is here with that size, with a shared lock: as long as it is open nobody removes
   * the blob. One that is being removed is waited for, and is not here.
   */
  async lock(digest: Digest, size: number | undefined): Promise<number | undefined> {
    const path = this.path(digest);
    let fd: number;
    try {
      fd = await this.#files.open(path, 'r');
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
      throw storageError(error, `read blob ${digest}`);
    }
    let held = false;
    try {
      const facts = this.#files.fstatSync(fd);
      if (size !== undefined && Number(facts.size) !== size) return undefined;
      while ((await this.#files.stat(path)).ino === facts.ino) {
        held = this.#tryHold(fd);
        if (held) break;
        await delay(POLL, undefined);
      }
      if (held) held = (await this.#files.stat(path)).ino === facts.ino;
      // As young as if it had been written now: no orphan to be swept before its entry is put.
      if (held) await this.#files.touch(fd, new Date()).catch(() => undefined);
      return held ? fd : undefined;
    } catch (error) {
      held = false;
      if (isSystemError(error, 'ENOENT')) return undefined;
      throw storageError(error, `read blob ${digest}`);
    } finally {
      if (!held) this.#files.closeSync(fd);
    }
  }

  /** On a disk without locks everything is held: nobody removes what cannot be locked. */
  #tryHold(fd: number): boolean {
    try {
      return this.#files.tryLock(fd, 'shared');
    } catch (error) {
      if (!isSystemError(error, 'ENOLCK')) throw error;
      return true;
    }
  }

  /**
   * Makes a complete and checked file the blob, and pins it. Takes over `fd`, which is locked. A blob that is
   * already there with that size is not rewritten.
   */
  async publish(temp: string, fd: number, digest: Digest, size: number): Promise<void> {
    if (await this.pinExisting(digest, size)) {
      await this.#temps.discard({ path: temp, fd });
      return;
    }
    const folder = join(this.#dir, 'blobs', digestAlgorithm(digest));
    await this.#files.fsync(fd);
    if (!this.#folders.has(folder)) {
      await this.#files.mkdir(folder);
      this.#folders.add(folder);
    }
    const placed = await this.#place(temp, fd, this.path(digest));
    this.#owner.onStored(size);
    await syncFolder(this.#files, folder);
    this.#files.tryLock(placed, 'shared');
    this.pins.hold(digest, placed);
  }

  /** Renames a file, or copies it where `blobs` is on another disk. Returns the open file that is in place. */
  async #place(temp: string, fd: number, path: string): Promise<number> {
    try {
      await this.#files.rename(temp, path);
      return fd;
    } catch (error) {
      if (!isSystemError(error, 'EXDEV')) throw error;
    }
    const copy = await this.#temps.create({ target: dirname(path) });
    try {
      const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
      for (let position = 0; ;) {
        const count = await this.#files.read(fd, buffer, position);
        if (count === 0) break;
        await writeFully(this.#files, copy.fd, buffer.subarray(0, count), position);
        position += count;
      }
      await this.#files.fsync(copy.fd);
      await this.#files.rename(copy.path, path);
    } catch (error) {
      await this.#temps.discard(copy);
      throw error;
    }
    await this.#temps.discard({ path: temp, fd });
    return copy.fd;
  }

  /**
   * Ends what {@link lock} began, as a use of the blob: what was chosen for eviction in the meantime was chosen
   * without knowing what it is needed for by now.
   */
  letGo(fd: number): void {
    try {
      this.#files.touchSync(fd, new Date(Date.now() + 1));
    } catch (error) {
      // A reader without the right to write holds all the same.
      if (!isSystemError(error)) throw error;
    } finally {
      this.#files.closeSync(fd);
    }
  }

  async isPinned(digest: Digest): Promise<boolean> {
    let fd: number | undefined;
    try {
      fd = await this.#files.open(this.path(digest), 'r');
      return this.#files.isLocked(fd);
    } catch (error) {
      if (isSystemError(error)) return true;
      throw error;
    } finally {
      if (fd !== undefined) await this.#files.close(fd);
    }
  }

  /** Unlinks a blob, unless a writer pins it. Readers who have it open keep it. */
  async unlink(digest: Digest): Promise<boolean> {
    this.pins.release(digest);
    const claim = this.claim(digest);
    if (claim === undefined) return false;
    try {
      return await claim.unlink();
    } finally {
      claim.release();
    }
  }

  /**
   * Keeps writers from pinning a blob until it is unlinked. Undefined when one pins it already.
   *
   * @param corrupt the inode of a file that this handle may itself have taken for the blob
   */
  claim(digest: Digest, corrupt?: bigint): Claim | undefined {
    if (corrupt !== undefined) this.pins.releaseFile(digest, corrupt);
    return claimFile(this.#files, this.path(digest));
  }
}

/** A blob that was read to its end. */
export interface HashedBlob {
  readonly digest: Digest;
  /** What its bytes hash to. */
  readonly found: Digest;
  /** Bytes. */
  readonly size: number;
  readonly ino: bigint;
}

/** A blob that is being read. */
interface ReadFile {
  readonly digest: Digest;
  readonly fd: number;
  /** Set when the file is closed by whoever deals with its corruption. */
  closing: Promise<void> | undefined;
}

async function hashFile(
  files: FileSystem,
  fd: number,
  algorithm: DigestAlgorithm,
  size: number,
  signal?: AbortSignal,
): Promise<Digester> {
  const digester = new Digester(algorithm);
  const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
  while (digester.size < size) {
    throwIfAborted(signal);
    const count = await files.read(fd, buffer, digester.size);
    if (count === 0) break;
    digester.update(buffer.subarray(0, count));
  }
  return digester;
}

function cutShort(digest: Digest, position: number, end: number): LayercacheError {
  return new LayercacheError(
    'STORAGE',
    `blob ${digest} ended at byte ${position} while bytes up to ${end} were read: its file was cut short meanwhile; run verify`,
  );
}

function asStream(chunks: AsyncGenerator<Buffer>, signal: AbortSignal | undefined): Readable {
  const stream = Readable.from(chunks, { objectMode: false, highWaterMark: READ_SIZE });
  if (signal === undefined) return stream;
  const stop = (): void => {
    // Whoever reads is told all the same. Without a reader it would be an uncaught exception.
    stream.once('error', () => undefined);
    stream.destroy(abortedError(signal));
  };
  if (signal.aborted) stop();
  else {
    signal.addEventListener('abort', stop, { once: true });
    stream.once('close', () => {
      signal.removeEventListener('abort', stop);
    });
  }
  return stream;
}

/** @throws IntegrityError `DIGEST_MISMATCH` when the bytes hashed are not those wanted */
export function checkBytes(
  digester: Pick<Digester, 'size' | 'digest'>,
  want: { readonly digest?: Digest | undefined; readonly size?: number | undefined },
): Digest {
  const name = want.digest ?? 'the blob';
  if (want.size !== undefined && digester.size !== want.size) {
    const more = digester.size > want.size;
    throw new IntegrityError(
      'DIGEST_MISMATCH',
      `${name} should have ${want.size} bytes, but ${more ? 'more' : `only ${digester.size}`} came; fetch it again`,
      { expected: want.size, found: digester.size },
    );
  }
  const found = digester.digest();
  if (want.digest !== undefined && found !== want.digest) {
    throw new IntegrityError(
      'DIGEST_MISMATCH',
      `the bytes that came for ${want.digest} hash to ${found}; fetch it again`,
      { expected: want.digest, found },
    );
  }
  return found;
}

/** Lets go of a source whose bytes are not needed, so that a socket or file behind it is closed. */
async function abandon(source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
  if (source instanceof Readable) source.destroy();
  else if (Symbol.asyncIterator in source) await source[Symbol.asyncIterator]().return?.();
}

/** All bytes of a stream that is known to be short. */
export async function collect(source: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
