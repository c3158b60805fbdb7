import { crc32 } from 'node:zlib';
import type { Digest } from '@layercache/oci';
import type { Entry } from './entry.js';
import {
  encodeEntry,
  isLong,
  lengthPrefixed,
  rawDigest,
  readAt,
  readByte,
  readDigest,
  readEntry,
  readText,
  readVarint,
  varint,
} from './record.js';

/** The byte format of the journal (docs/format.md, "The journal"). Numbers are little-endian. */
export const JOURNAL_HEADER = 24;
const MAGIC = Buffer.from('LCJRNL01', 'latin1');
const FRAME = 12;
const MARKER = Buffer.from('\x00LCR', 'latin1');

export type Change =
  | { readonly type: 'put'; readonly entry: Entry }
  | { readonly type: 'remove'; readonly digest: Digest }
  | { readonly type: 'untag'; readonly name: string }
  /** A newer journal takes the place of this one, and everything in it was committed. */
  | { readonly type: 'superseded' };

const Op = { put: 1, remove: 2, untag: 3, superseded: 4 } as const;

export interface JournalHeader {
  /** That of the map to which the changes apply. */
  readonly generation: number;
  /** Starts the checksums: bytes of another journal, or inside an annotation, are never taken for a record. */
  readonly salt: number;
}

export function encodeJournalHeader({ generation, salt }: JournalHeader): Buffer {
  const bytes = Buffer.alloc(JOURNAL_HEADER);
  MAGIC.copy(bytes);
  bytes.writeBigUInt64LE(BigInt(generation), 8);
  bytes.writeUInt32LE(salt, 16);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 20)), 20);
  return bytes;
}

/** Undefined when the bytes are not the beginning of a journal. */
export function decodeJournalHeader(bytes: Buffer): JournalHeader | undefined {
  if (bytes.length < JOURNAL_HEADER || !bytes.subarray(0, 8).equals(MAGIC)) return undefined;
  if (bytes.readUInt32LE(20) !== crc32(bytes.subarray(0, 20))) return undefined;
  return { generation: Number(bytes.readBigUInt64LE(8)), salt: bytes.readUInt32LE(16) };
}

/** One record: changes that are made together or not at all. */
export function encodeChanges(changes: readonly Change[], salt: number): Buffer {
  const payload = Buffer.concat(changes.flatMap(encodeChange));
  const frame = Buffer.alloc(FRAME);
  MARKER.copy(frame);
  frame.writeUInt32LE(payload.length, 4);
  frame.writeUInt32LE(crc32(payload, salt), 8);
  return Buffer.concat([frame, payload]);
}

/**
 * The changes in a stretch of journal. A record that was torn is skipped when a whole one follows; at the end it
 * may still be on its way, so `end` stays before it. `torn` counts the bytes that were skipped.
 */
export function decodeChanges(bytes: Buffer, salt: number): { changes: Change[]; end: number; torn: number } {
  const changes: Change[] = [];
  let end = 0;
  let torn = 0;
  for (let at = 0; at >= 0 && at + FRAME <= bytes.length;) {
    const record = recordAt(bytes, at, salt);
    if (record === undefined || isOverlapped(bytes, at, record.end, salt)) {
      at = bytes.indexOf(MARKER, at + 1);
    } else {
      for (const change of record.changes) changes.push(change);
      torn += at - end;
      at = end = record.end;
    }
  }
  return { changes, end, torn };
}

/**
 * Whether another record begins before this one ends. Then this one was torn, and only looks whole because its
 * missing bytes happen to be those that the next one begins with.
 */
function isOverlapped(bytes: Buffer, start: number, end: number, salt: number): boolean {
  for (let at = bytes.indexOf(MARKER, start + 1); at >= 0 && at < end; at = bytes.indexOf(MARKER, at + 1)) {
    const record = recordAt(bytes, at, salt);
    if (record !== undefined && record.end > end) return true;
  }
  return false;
}

function recordAt(bytes: Buffer, at: number, salt: number): { changes: Change[]; end: number } | undefined {
  if (!bytes.subarray(at, at + 4).equals(MARKER)) return undefined;
  const end = at + FRAME + bytes.readUInt32LE(at + 4);
  if (end > bytes.length) return undefined;
  const payload = bytes.subarray(at + FRAME, end);
  if (crc32(payload, salt) !== bytes.readUInt32LE(at + 8)) return undefined;
  const changes: Change[] = [];
  for (let offset = 0; offset < payload.length;) {
    const { value, end: next } = readAt(offset, () => readChange(payload));
    changes.push(value);
    offset = next;
  }
  return { changes, end };
}

function encodeChange(change: Change): Buffer[] {
  switch (change.type) {
    case 'put': {
      const record = encodeEntry(change.entry);
      return [Buffer.of(Op.put), varint(record.length), record];
    }
    case 'remove':
      return [Buffer.of(Op.remove, isLong(change.digest) ? 1 : 0), rawDigest(change.digest)];
    case 'untag':
      return [Buffer.of(Op.untag), ...lengthPrefixed(change.name)];
    case 'superseded':
      return [Buffer.of(Op.superseded)];
  }
}

function readChange(bytes: Buffer): Change {
  const op = readByte(bytes);
  if (op === Op.put) {
    // An entry ends where it ends; its length lets another reader skip it.
    readVarint(bytes);
    return { type: 'put', entry: readEntry(bytes) };
  }
  if (op === Op.remove) {
    const long = readByte(bytes) === 1;
    return { type: 'remove', digest: readDigest(bytes, long) };
  }
  if (op === Op.untag) return { type: 'untag', name: readText(bytes) };
  if (op === Op.superseded) return { type: 'superseded' };
  throw new RangeError(`change ${op} is not known`);
}
