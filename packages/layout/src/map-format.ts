import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { refName, type Digest } from '@layercache/oci';
import { lookupKeys, type Entry } from './entry.js';
import type { IndexHead } from './index-document.js';
import { canonicalJson } from './index-document.js';
import { isGeneration } from './journal-format.js';
import { encodeEntry, varint } from './record.js';

/** The byte format of the index map (docs/format.md, "The index map"). Numbers are little-endian. */
export const PAGE = 4096;
/** Bytes of a page before its trailer: page number (4), generation (8), CRC-32 of all before it (4). */
export const PAYLOAD = 4080;
/** Key (8), page (4) and offset (2) of the record, what of it the key is (2). */
export const SLOT = 16;
export const SLOTS_PER_PAGE = PAYLOAD / SLOT;
const MAGIC = 0x50414d434c; // "LCMAP", the first byte lowest
const VERSION = 1;

export const SlotKind = { digest: 1, counterpart: 2, name: 3 } as const;

/** Which file `index.json` is, and what it holds. */
export interface IndexIdentity {
  readonly ino: bigint;
  /** Bytes. */
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

export interface MapHeader {
  readonly generation: number;
  readonly index: IndexIdentity;
  /** SHA-256 of the `index.json` that the map mirrors. */
  readonly indexDigest: Digest;
  /** Another tool wrote that `index.json`: nothing was derived from what it added. */
  readonly foreign: boolean;
  readonly recordCount: number;
  /** Pages, from 1 on, that hold records. */
  readonly recordPages: number;
  /** Bytes of the head of `index.json`, which follows the records. */
  readonly headLength: number;
  /** What the leading bits of a key are scaled to. */
  readonly capacity: number;
  readonly slotCount: number;
}

/** Why a map cannot be used. Never shown: the map is made again. */
export class MapInvalid extends Error {}

export function headPages(header: Pick<MapHeader, 'headLength'>): number {
  return Math.ceil(header.headLength / PAYLOAD);
}

export function slotPages(header: Pick<MapHeader, 'slotCount'>): number {
  return Math.ceil(header.slotCount / SLOTS_PER_PAGE);
}

export function mapSize(header: MapHeader): number {
  return PAGE * (1 + header.recordPages + headPages(header) + slotPages(header));
}

/** The two words of a key that a slot holds. A key is a SHA-256, so its leading bits are its place. */
export function keyWords(digest: Digest): [high: number, low: number] {
  if (!digest.startsWith('sha256:')) return hashedWords(`digest\0${digest}`);
  return [hexWord(digest, 7), hexWord(digest, 15)];
}

export function nameWords(name: string): [high: number, low: number] {
  return hashedWords(`name\0${name}`);
}

/** First slot to look at. */
export function idealSlot(high: number, capacity: number): number {
  return Math.floor((high * capacity) / 2 ** 32);
}

function hashedWords(text: string): [number, number] {
  const hash = createHash('sha256').update(text).digest();
  return [hash.readUInt32BE(0), hash.readUInt32BE(4)];
}

function hexWord(digest: string, at: number): number {
  let value = 0;
  for (let i = at; i < at + 8; i++) {
    const code = digest.charCodeAt(i);
    value = (value << 4) | (code < 58 ? code - 48 : code - 87);
  }
  return value >>> 0;
}

export function sealPage(page: Buffer, number: number, generation: number): void {
  page.writeUInt32LE(number, PAYLOAD);
  page.writeBigUInt64LE(BigInt(generation), PAYLOAD + 4);
  page.writeUInt32LE(crc32(page.subarray(0, PAGE - 4)), PAGE - 4);
}

/** @throws MapInvalid */
export function checkPage(page: Buffer, number: number): void {
  if (page.length !== PAGE || page.readUInt32LE(PAGE - 4) !== crc32(page.subarray(0, PAGE - 4))) {
    throw new MapInvalid(`page ${number} is damaged`);
  }
  if (page.readUInt32LE(PAYLOAD) !== number) throw new MapInvalid(`page ${number} is another page`);
}

export function encodeHeader(header: MapHeader): Buffer {
  const page = Buffer.alloc(PAGE);
  page.writeUIntLE(MAGIC, 0, 6);
  page.writeUInt16LE(VERSION, 6);
  page.writeBigUInt64LE(BigInt(header.generation), 8);
  page.writeBigUInt64LE(header.index.ino, 16);
  page.writeBigUInt64LE(header.index.size, 24);
  page.writeBigUInt64LE(header.index.mtimeNs, 32);
  page.write(header.indexDigest.slice(7), 40, 'hex');
  page.writeUInt32LE(header.foreign ? 1 : 0, 72);
  page.writeUInt32LE(header.recordCount, 76);
  page.writeUInt32LE(header.recordPages, 80);
  page.writeUInt32LE(header.headLength, 84);
  page.writeUInt32LE(header.capacity, 88);
  page.writeUInt32LE(header.slotCount, 92);
  sealPage(page, 0, header.generation);
  return page;
}

/** @throws MapInvalid */
export function decodeHeader(page: Buffer): MapHeader {
  checkPage(page, 0);
  if (page.readUIntLE(0, 6) !== MAGIC) throw new MapInvalid('not a map');
  if (page.readUInt16LE(6) !== VERSION) throw new MapInvalid('a map of another version');
  const generation = Number(page.readBigUInt64LE(8));
  if (!isGeneration(generation)) throw new MapInvalid('a generation that cannot be');
  return {
    generation,
    index: {
      ino: page.readBigUInt64LE(16),
      size: page.readBigUInt64LE(24),
      mtimeNs: page.readBigUInt64LE(32),
    },
    indexDigest: `sha256:${page.toString('hex', 40, 72)}`,
    foreign: page.readUInt32LE(72) === 1,
    recordCount: page.readUInt32LE(76),
    recordPages: page.readUInt32LE(80),
    headLength: page.readUInt32LE(84),
    capacity: page.readUInt32LE(88),
    slotCount: page.readUInt32LE(92),
  };
}

/** Makes a map out of entries that come in canonical order. */
export class MapEncoder {
  readonly #generation: number;
  readonly #done: Buffer[] = [];
  #page = Buffer.alloc(PAGE);
  #used = 0;
  /** The number of the page that is being filled. Page 0 is the header. */
  #number = 1;
  #recordCount = 0;
  /** Four numbers a slot: key, high and low word; page; offset × 4 + kind. */
  #slots = new Uint32Array(4096);
  #slotCount = 0;

  constructor(generation: number) {
    this.#generation = generation;
  }

  add(entry: Entry): void {
    const record = encodeEntry(entry);
    const prefix = varint(record.length);
    const length = prefix.length + record.length;
    if (this.#used > 0 && length > PAYLOAD - this.#used) this.#nextPage();
    const page = this.#number;
    const offset = this.#used;
    this.#append(prefix);
    this.#append(record);
    this.#recordCount++;
    // After a record of several pages the next begins on a page of its own.
    if (this.#number > page) this.#nextPage();

    const { digest } = entry.descriptor;
    for (const key of lookupKeys(entry.descriptor)) {
      this.#addSlot(keyWords(key), page, offset, key === digest ? SlotKind.digest : SlotKind.counterpart);
    }
    const name = refName(entry.descriptor);
    if (name !== undefined) this.#addSlot(nameWords(name), page, offset, SlotKind.name);
  }

  /** Pages that are complete, in order from page 1, and were not taken before. */
  take(): Buffer[] {
    return this.#done.splice(0);
  }

  /** The pages that remain, and the header, which is page 0. */
  finish(
    head: IndexHead,
    source: Pick<MapHeader, 'index' | 'indexDigest' | 'foreign'>,
  ): { pages: Buffer[]; header: Buffer } {
    if (this.#used > 0) this.#nextPage();
    const recordPages = this.#number - 1;
    const headBytes = Buffer.from(canonicalJson(head));
    this.#append(headBytes);
    if (this.#used > 0) this.#nextPage();

    const capacity = Math.ceil((this.#slotCount * 4) / 3) + 1;
    let place = -1;
    for (const at of this.#sortedSlots(capacity)) {
      const target = Math.max(idealSlot(this.#slots[at] ?? 0, capacity), place + 1);
      while (place + 1 < target) {
        this.#putSlot(undefined);
        place++;
      }
      this.#putSlot(at);
      place++;
    }
    if (this.#used > 0) this.#nextPage();
    const header = encodeHeader({
      generation: this.#generation,
      ...source,
      recordCount: this.#recordCount,
      recordPages,
      headLength: headBytes.length,
      capacity,
      slotCount: place + 1,
    });
    return { pages: this.take(), header };
  }

  #append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      if (this.#used === PAYLOAD) this.#nextPage();
      const count = Math.min(bytes.length - done, PAYLOAD - this.#used);
      this.#page.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
    }
  }

  #nextPage(): void {
    sealPage(this.#page, this.#number, this.#generation);
    this.#done.push(this.#page);
    this.#page = Buffer.alloc(PAGE);
    this.#used = 0;
    this.#number++;
  }

  #addSlot([high, low]: [number, number], page: number, offset: number, kind: number): void {
    const at = this.#slotCount * 4;
    if (at === this.#slots.length) {
      const larger = new Uint32Array(at * 2);
      larger.set(this.#slots);
      this.#slots = larger;
    }
    this.#slots[at] = high;
    this.#slots[at + 1] = low;
    this.#slots[at + 2] = page;
    this.#slots[at + 3] = offset * 4 + kind;
    this.#slotCount++;
  }

  #putSlot(at: number | undefined): void {
    if (this.#used === PAYLOAD) this.#nextPage();
    if (at !== undefined) {
      const tail = this.#slots[at + 3] ?? 0;
      this.#page.writeUInt32LE(this.#slots[at] ?? 0, this.#used);
      this.#page.writeUInt32LE(this.#slots[at + 1] ?? 0, this.#used + 4);
      this.#page.writeUInt32LE(this.#slots[at + 2] ?? 0, this.#used + 8);
      this.#page.writeUInt16LE(Math.floor(tail / 4), this.#used + 12);
      this.#page.writeUInt16LE(tail % 4, this.#used + 14);
    }
    this.#used += SLOT;
  }

  /** Where the slots are, by key and then by record. Keys are uniform, so one counting pass nearly sorts them. */
  #sortedSlots(capacity: number): Uint32Array {
    const slots = this.#slots;
    const bucket = (at: number): number => idealSlot(word(slots, at), capacity);
    const starts = new Uint32Array(capacity + 1);
    for (let i = 0; i < this.#slotCount; i++) add(starts, bucket(i * 4) + 1, 1);
    for (let i = 1; i <= capacity; i++) add(starts, i, word(starts, i - 1));
    const next = starts.slice();
    const order = new Uint32Array(this.#slotCount);
    for (let i = 0; i < this.#slotCount; i++) order[add(next, bucket(i * 4), 1)] = i * 4;
    const compare = (a: number, b: number): number =>
      word(slots, a) - word(slots, b) || word(slots, a + 1) - word(slots, b + 1) || a - b;
    for (let i = 0; i < capacity; i++) {
      const [start, end] = [word(starts, i), word(starts, i + 1)];
      if (end - start > 1) order.subarray(start, end).sort(compare);
    }
    return order;
  }
}

function word(words: Uint32Array, at: number): number {
  return words[at] ?? 0;
}

/** Returns what was there before. */
function add(words: Uint32Array, at: number, count: number): number {
  const before = word(words, at);
  words[at] = before + count;
  return before;
}
