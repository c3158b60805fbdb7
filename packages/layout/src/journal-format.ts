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
  readSizedEntry,
  readText,
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
  const generation = Number(bytes.readBigUInt64LE(8));
  if (!isGeneration(generation)) return undefined;
  return { generation, salt: bytes.readUInt32LE(16) };
}

/** Whether the number can be a generation, and leaves room for later ones: this one is a time in the year 2200. */
export function isGeneration(number: number): boolean {
  return number <= 2 ** 52 + 2 ** 51;
}

/** One record: changes that are made together or not at all. */
export function encodeChanges(changes: readonly Change[], salt: number): Buffer {
  return frameRecord(Buffer.concat(changes.flatMap(encodeChange)), salt);
}

/** A record with this payload, which is copied as it is when it is that of a newer version. */
export function frameRecord(payload: Buffer, salt: number): Buffer {
  const frame = Buffer.alloc(FRAME);
  MARKER.copy(frame);
  frame.writeUInt32LE(payload.length, 4);
  frame.writeUInt32LE(crc32(payload, salt), 8);
  return Buffer.concat([frame, payload]);
}

/** What a stretch of journal says. */
export interface DecodedChanges {
  readonly changes: Change[];
  /** Where the first record begins that is not whole: it may still be on its way. */
  readonly end: number;
  /** How many bytes before `end` are no record. */
  readonly torn: number;
  /** The payloads of whole records that cannot be understood, because a newer version wrote them. */
  readonly unknown: Buffer[];
}

/** Decodes a stretch of journal, whatever its bytes are. A torn record is skipped when a whole one follows. */
export function decodeChanges(bytes: Buffer, salt: number): DecodedChanges {
  const changes: Change[] = [];
  const unknown: Buffer[] = [];
  let end = 0;
  let torn = 0;
  for (let at = 0; at >= 0;) {
    const recordEnd = wholeRecordEnd(bytes, at, salt);
    if (recordEnd === undefined || isOverlapped(bytes, at, recordEnd, salt)) {
      at = bytes.indexOf(MARKER, at + 1);
      continue;
    }
    const payload = bytes.subarray(at + FRAME, recordEnd);
    const decoded = decodePayload(payload);
    if (decoded === undefined) unknown.push(payload);
    else for (const change of decoded) changes.push(change);
    torn += at - end;
    at = end = recordEnd;
  }
  return { changes, end, torn, unknown };
}

/**
 * Whether another record begins before this one ends. Then this one was torn, and only looks whole because its
 * missing bytes happen to be those that the next one begins with.
 */
function isOverlapped(bytes: Buffer, start: number, end: number, salt: number): boolean {
  for (let at = bytes.indexOf(MARKER, start + 1); at >= 0 && at < end; at = bytes.indexOf(MARKER, at + 1)) {
    if ((frameEnd(bytes, at) ?? 0) > end && wholeRecordEnd(bytes, at, salt) !== undefined) return true;
  }
  return false;
}

/** Where the record at a place says that it ends; undefined when there is no frame, or not all of the record. */
function frameEnd(bytes: Buffer, at: number): number | undefined {
  if (at + FRAME > bytes.length || !bytes.subarray(at, at + 4).equals(MARKER)) return undefined;
  const end = at + FRAME + bytes.readUInt32LE(at + 4);
  return end > bytes.length ? undefined : end;
}

/** As {@link frameEnd}, if the checksum is right as well. */
function wholeRecordEnd(bytes: Buffer, at: number, salt: number): number | undefined {
  const end = frameEnd(bytes, at);
  if (end === undefined) return undefined;
  return crc32(bytes.subarray(at + FRAME, end), salt) === bytes.readUInt32LE(at + 8) ? end : undefined;
}

/** Undefined when this version does not understand all of it: changes are made together or not at all. */
function decodePayload(payload: Buffer): Change[] | undefined {
  const changes: Change[] = [];
  try {
    for (let offset = 0; offset < payload.length;) {
      const { value, end } = readAt(offset, () => readChange(payload));
      changes.push(value);
      offset = end;
    }
    return changes;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
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
  if (op === Op.put) return { type: 'put', entry: readSizedEntry(bytes) };
  if (op === Op.remove) {
    const algorithm = readByte(bytes);
    if (algorithm > 1) throw new RangeError(`digest algorithm ${algorithm} is not known`);
    return { type: 'remove', digest: readDigest(bytes, algorithm === 1) };
  }
  if (op === Op.untag) return { type: 'untag', name: readText(bytes) };
  if (op === Op.superseded) return { type: 'superseded' };
  throw new RangeError(`change ${op} is not known`);
}
