import { constants } from 'node:fs';
import { LayercacheError } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';
import {
  JOURNAL_HEADER,
  decodeChanges,
  decodeJournalHeader,
  encodeChanges,
  type Change,
  type JournalHeader,
} from './journal-format.js';

/** Bytes that are read at a time. A record is shorter. */
const MAX_STRETCH = 256 * 1024 * 1024;

/** The journal file, opened: written at its end by everyone, and read up to there. */
export class Journal {
  readonly #files: FileSystem;
  readonly #fd: number;
  readonly #probe = Buffer.alloc(1);
  readonly ino: bigint;
  readonly header: JournalHeader;
  /** A newer journal takes its place. */
  superseded = false;
  /** Where the first record begins that was not read yet. */
  #position = JOURNAL_HEADER;
  /** How long the file was when last read. */
  #seen = JOURNAL_HEADER;
  #torn = 0;
  #unknown: Buffer[] = [];

  private constructor(files: FileSystem, fd: number, ino: bigint, header: JournalHeader) {
    this.#files = files;
    this.#fd = fd;
    this.ino = ino;
    this.header = header;
  }

  /** Undefined when there is none that can be read. It is read-only where it cannot be written. */
  static open(files: FileSystem, path: string): Journal | undefined {
    let fd: number;
    try {
      fd = openForAppend(files, path);
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return undefined;
      throw error;
    }
    const bytes = Buffer.alloc(JOURNAL_HEADER);
    const count = files.readSync(fd, bytes, 0, JOURNAL_HEADER, 0);
    const header = decodeJournalHeader(bytes.subarray(0, count));
    if (header !== undefined) return new Journal(files, fd, files.fstatSync(fd).ino, header);
    files.closeSync(fd);
    return undefined;
  }

  /** Bytes of records. */
  get length(): number {
    return this.#seen - JOURNAL_HEADER;
  }

  /** Bytes that are no record. */
  get torn(): number {
    return this.#torn + this.#seen - this.#position;
  }

  /** The payloads of records that a newer version wrote: whole, and not to be understood by this one. */
  get unknown(): readonly Buffer[] {
    return this.#unknown;
  }

  /** Whether there is something to read. One system call, half a microsecond. */
  get grown(): boolean {
    return this.#files.readSync(this.#fd, this.#probe, 0, 1, this.#seen) > 0;
  }

  /** The changes since the last call. */
  read(): Change[] {
    const all: Change[] = [];
    for (;;) {
      const left = Math.max(0, Number(this.#files.fstatSync(this.#fd).size) - this.#position);
      const bytes = Buffer.allocUnsafe(Math.min(left, MAX_STRETCH));
      const count = this.#files.readSync(this.#fd, bytes, 0, bytes.length, this.#position);
      const { changes, end, torn, unknown } = decodeChanges(bytes.subarray(0, count), this.header.salt);
      this.#seen = this.#position + count;
      // No record is as long as a stretch, so one that does not end in it never will.
      const isStuck = end === 0 && count === MAX_STRETCH;
      this.#position += isStuck ? count : end;
      this.#torn += isStuck ? count : torn;
      for (const payload of unknown) this.#unknown.push(Buffer.from(payload));
      for (const change of changes) {
        all.push(change);
        if (change.type === 'superseded') this.superseded = true;
      }
      if (count < MAX_STRETCH) return all;
    }
  }

  /**
   * Only under the lock. A record that was written in part is torn, and no record.
   *
   * @throws LayercacheError `DOCUMENT_INVALID` when the changes are too long for one record
   */
  append(changes: readonly Change[]): void {
    const bytes = encodeChanges(changes, this.header.salt);
    if (bytes.length >= MAX_STRETCH) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `${changes.length} changes take ${bytes.length} bytes, and a journal record has fewer than ${MAX_STRETCH}; put fewer entries at a time`,
      );
    }
    const count = this.#files.appendSync(this.#fd, bytes);
    if (count < bytes.length) {
      throw Object.assign(new Error(`only ${count} of ${bytes.length} bytes were written`), {
        code: 'ENOSPC',
        syscall: 'write',
      });
    }
  }

  sync(): Promise<void> {
    return this.#files.fsync(this.#fd);
  }

  close(): void {
    this.#files.closeSync(this.#fd);
  }
}

function openForAppend(files: FileSystem, path: string): number {
  try {
    return files.openSync(path, constants.O_RDWR | constants.O_APPEND);
  } catch (error) {
    if (!isSystemError(error, 'EROFS', 'EACCES', 'EPERM')) throw error;
    return files.openSync(path, 'r');
  }
}
