import {
  Annotation,
  MediaType,
  descriptorSchema,
  isDigest,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Entry } from './entry.js';
import { canonicalJson, isDeep } from './index-document.js';

/**
 * One entry as bytes, for the map and the journal (docs/format.md, "Entry record"). Anything of a descriptor that
 * has no place of its own travels as JSON, so nothing is lost.
 */
const Flag = { proven: 1, sha512: 2, diffID: 4, diffIDSha512: 8, counterparts: 16, rest: 32 } as const;
const ALL_FLAGS = 63;

/** Media types by number. Part of the format: only ever added to. 0 means that the name follows. */
const MEDIA_TYPES: readonly string[] = [
  '',
  MediaType.layerGzip,
  MediaType.layer,
  MediaType.layerZstd,
  MediaType.manifest,
  MediaType.index,
  MediaType.config,
  MediaType.dockerLayerGzip,
  MediaType.dockerLayer,
  MediaType.dockerManifest,
  MediaType.dockerManifestList,
  MediaType.dockerConfig,
  MediaType.octetStream,
];
const MEDIA_TYPE_NUMBERS: ReadonlyMap<string, number> = new Map(
  MEDIA_TYPES.map((name, number) => [name, number]),
);

export function encodeEntry(entry: Entry): Buffer {
  const { mediaType, digest, size, annotations, ...fields } = entry.descriptor;
  const { [Annotation.diffID]: diffID, [Annotation.digest]: list, ...otherAnnotations } = annotations ?? {};
  const binaryDiffID = diffID !== undefined && isDigest(diffID) ? diffID : undefined;
  const counterparts = list === undefined ? undefined : digestList(list);
  const restAnnotations: Record<string, string> = { ...otherAnnotations };
  if (diffID !== undefined && binaryDiffID === undefined) restAnnotations[Annotation.diffID] = diffID;
  if (list !== undefined && counterparts === undefined) restAnnotations[Annotation.digest] = list;
  const rest =
    Object.keys(restAnnotations).length > 0 ? { ...fields, annotations: restAnnotations } : { ...fields };
  const restText = Object.keys(rest).length > 0 ? canonicalJson(rest) : undefined;
  const number = MEDIA_TYPE_NUMBERS.get(mediaType) ?? 0;

  const parts: (Buffer | Uint8Array)[] = [
    Buffer.of(
      (entry.proven ? Flag.proven : 0) |
        (isLong(digest) ? Flag.sha512 : 0) |
        (binaryDiffID === undefined ? 0 : Flag.diffID | (isLong(binaryDiffID) ? Flag.diffIDSha512 : 0)) |
        (counterparts === undefined ? 0 : Flag.counterparts) |
        (restText === undefined ? 0 : Flag.rest),
      number,
    ),
  ];
  if (number === 0) parts.push(...lengthPrefixed(mediaType));
  parts.push(rawDigest(digest), varint(size));
  if (binaryDiffID !== undefined) parts.push(rawDigest(binaryDiffID));
  if (counterparts !== undefined) {
    parts.push(varint(counterparts.length));
    for (const one of counterparts) parts.push(Buffer.of(isLong(one) ? 1 : 0), rawDigest(one));
  }
  if (restText !== undefined) parts.push(...lengthPrefixed(restText));
  return Buffer.concat(parts);
}

/** @throws RangeError when the bytes are not a record */
export function decodeEntry(bytes: Buffer, start: number): Entry {
  cursor = start;
  return readEntry(bytes);
}

/**
 * An entry record after its length, whose end is where that says: bytes at its end that this version does not know
 * are skipped.
 */
export function readSizedEntry(bytes: Buffer): Entry {
  const length = readVarint(bytes);
  const end = within(bytes, cursor + length);
  const entry = readEntry(bytes);
  if (cursor > end) throw new RangeError('a record is longer than it says');
  cursor = end;
  return entry;
}

function readEntry(bytes: Buffer): Entry {
  const flags = readByte(bytes);
  const number = readByte(bytes);
  const mediaType = number === 0 ? readText(bytes) : MEDIA_TYPES[number];
  if (mediaType === undefined) throw new RangeError(`media type number ${number} is not known`);
  if (flags > ALL_FLAGS) throw new RangeError(`flags ${flags} are not known`);
  const digest = readDigest(bytes, (flags & Flag.sha512) !== 0);
  const size = readVarint(bytes);
  const diffID =
    (flags & Flag.diffID) === 0 ? undefined : readDigest(bytes, (flags & Flag.diffIDSha512) !== 0);
  const list = (flags & Flag.counterparts) === 0 ? undefined : readList(bytes);
  const proven = (flags & Flag.proven) !== 0;
  if ((flags & Flag.rest) !== 0) {
    const { annotations: others, ...rest } = readFields(bytes);
    const annotations = { ...others };
    if (diffID !== undefined) annotations[Annotation.diffID] = diffID;
    if (list !== undefined) annotations[Annotation.digest] = list;
    const descriptor = { ...rest, mediaType, digest, size };
    return checked({
      descriptor: Object.keys(annotations).length === 0 ? descriptor : { ...descriptor, annotations },
      proven,
    });
  }
  if (number === 0) return checked({ descriptor: plain(mediaType, digest, size, diffID, list), proven });
  return { descriptor: plain(mediaType, digest, size, diffID, list), proven };
}

function plain(
  mediaType: string,
  digest: Digest,
  size: number,
  diffID: Digest | undefined,
  list: string | undefined,
): Descriptor {
  // The names written out: V8 makes such an object in one go, and one with computed names field by field.
  if (diffID !== undefined) {
    const annotations: Record<string, string> =
      list === undefined
        ? { 'dev.layercache.diffid': diffID }
        : { 'dev.layercache.diffid': diffID, 'dev.layercache.digest': list };
    return { mediaType, digest, size, annotations };
  }
  if (list !== undefined) {
    const annotations: Record<string, string> = { 'dev.layercache.digest': list };
    return { mediaType, digest, size, annotations };
  }
  return { mediaType, digest, size };
}

/** The fields of a descriptor that have no place of their own, as they are written: not checked yet. */
function readFields(bytes: Buffer): { annotations?: Record<string, string> } {
  const text = readText(bytes);
  let fields: unknown;
  try {
    fields = JSON.parse(text);
  } catch (cause) {
    throw new RangeError('the rest of a record is not JSON', { cause });
  }
  if (typeof fields === 'object' && fields !== null && !Array.isArray(fields)) return fields;
  throw new RangeError('the rest of a record is not an object');
}

/** Bytes of a record may be anything: what follows relies on a descriptor as `index.json` may have it. */
function checked(entry: Entry): Entry {
  if (!descriptorSchema.safeParse(entry.descriptor).success || isDeep(entry.descriptor)) {
    throw new RangeError('a record holds no valid descriptor');
  }
  return entry;
}

/** LEB128, seven bits a byte, the lowest first. */
export function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

export function lengthPrefixed(text: string): [Buffer, Buffer] {
  const bytes = Buffer.from(text);
  return [varint(bytes.length), bytes];
}

export function rawDigest(digest: Digest): Buffer {
  return Buffer.from(digest.slice(7), 'hex');
}

export function isLong(digest: Digest): boolean {
  return digest.startsWith('sha512:');
}

/** Reads what the functions above wrote, one after the other. A place in memory, not an object: lookups are many. */
let cursor = 0;

export function readAt<T>(start: number, read: () => T): { value: T; end: number } {
  cursor = start;
  const value = read();
  return { value, end: cursor };
}

export function readVarint(bytes: Buffer): number {
  let value = 0;
  let scale = 1;
  for (;;) {
    const byte = byteAt(bytes, cursor++);
    value += (byte & 127) * scale;
    if (value > Number.MAX_SAFE_INTEGER) throw new RangeError('a number is too large');
    if (byte < 128) return value;
    scale *= 128;
    if (scale > 2 ** 53) throw new RangeError('a number is too large');
  }
}

export function readText(bytes: Buffer): string {
  const length = readVarint(bytes);
  const start = cursor;
  cursor = within(bytes, start + length);
  return bytes.toString('utf8', start, cursor);
}

export function readDigest(bytes: Buffer, long: boolean): Digest {
  const start = cursor;
  cursor = within(bytes, start + (long ? 64 : 32));
  if (long) return `sha512:${bytes.toString('hex', start, cursor)}`;
  if (isExpected(bytes, start)) return expected;
  if (isLatest(bytes, start)) return latest;
  for (let i = 0; i < 32; i++) {
    const byte = bytes[start + i] ?? 0;
    latestBytes[i] = byte;
    digestPairs[i] = HEX_PAIRS[byte] ?? 0;
  }
  latest = digestText.toString('latin1', 1) as Digest;
  return latest;
}

/**
 * Says which digest the records to come will name: the one they are looked up by. The two forms of a layer name each
 * other, so of four digests in a lookup only one has to be made into text.
 */
export function expectDigest(digest: Digest): void {
  if (isLong(digest)) return;
  expectedText.write(digest, 1, 'latin1');
  expected = digest;
}

/** Two hexadecimal digits a byte. Half the time of `toString('hex')` and a concatenation, and lookups are many. */
const HEX_PAIRS = new Uint16Array(
  new Uint8Array(
    Buffer.from(Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0')).join('')),
  ).buffer,
);
/** A digest as text, from the second byte on, so that its digits lie in pairs. */
function digestBuffer(): { text: Buffer; pairs: Uint16Array } {
  const text = Buffer.alloc(72);
  text.write('sha256:', 1);
  return { text, pairs: new Uint16Array(text.buffer, text.byteOffset + 8, 32) };
}

const { text: digestText, pairs: digestPairs } = digestBuffer();
const { text: expectedText, pairs: expectedPairs } = digestBuffer();
let expected = '' as Digest;
const latestBytes = new Uint8Array(32);
let latest = `sha256:${'0'.repeat(64)}` as Digest;

function isExpected(bytes: Buffer, start: number): boolean {
  for (let i = 0; i < 32; i++) if (HEX_PAIRS[bytes[start + i] ?? 0] !== expectedPairs[i]) return false;
  return true;
}

function isLatest(bytes: Buffer, start: number): boolean {
  for (let i = 0; i < 32; i++) if (bytes[start + i] !== latestBytes[i]) return false;
  return true;
}

export function readByte(bytes: Buffer): number {
  return byteAt(bytes, cursor++);
}

function readList(bytes: Buffer): string {
  const count = readVarint(bytes);
  if (count === 0) throw new RangeError('a list of counterparts is empty');
  let list: string = readListed(bytes);
  for (let i = 1; i < count; i++) list += `,${readListed(bytes)}`;
  return list;
}

function readListed(bytes: Buffer): Digest {
  const algorithm = readByte(bytes);
  if (algorithm > 1) throw new RangeError(`digest algorithm ${algorithm} is not known`);
  return readDigest(bytes, algorithm === 1);
}

function byteAt(bytes: Buffer, at: number): number {
  const byte = bytes[at];
  if (byte === undefined) throw new RangeError('a record is cut short');
  return byte;
}

function within(bytes: Buffer, end: number): number {
  if (end > bytes.length) throw new RangeError('a record is cut short');
  return end;
}

/** The digests of a list; undefined unless putting them together again gives the same text. */
function digestList(list: string): Digest[] | undefined {
  const parts = list.split(',');
  return list !== '' && parts.every(isDigest) ? parts : undefined;
}
