import { Annotation, refName, type Digest } from '@layercache/oci';
import type { Entry } from './entry.js';
import type { EntrySource } from './entry-table.js';
import { isDeep, type IndexHead } from './index-document.js';
import {
  MapInvalid,
  PAGE,
  PAYLOAD,
  SLOT,
  SLOTS_PER_PAGE,
  headPages,
  idealSlot,
  keyWords,
  nameWords,
  type MapHeader,
} from './map-format.js';
import { decodeEntry, expectDigest, readAt, readVarint } from './record.js';

/** Where the pages of a map are: in one piece of memory, into which they are brought when they are needed. */
export interface PageSource {
  /** Another piece after each call of `locate`, it may be. */
  readonly bytes: Buffer;
  /** Where in `bytes` the page begins, which has been checked. Holds until the next page is asked for. */
  locate(number: number): number;
}

/** A map that lies in memory as a whole, its header first. */
export class MemoryPages implements PageSource {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  locate(number: number): number {
    return number * PAGE;
  }
}

/**
 * Looks things up in a map, in place.
 *
 * @throws MapInvalid from any method, when a page is damaged
 */
export class MapReader implements EntrySource {
  readonly header: MapHeader;
  readonly #pages: PageSource;
  readonly #firstSlotPage: number;

  constructor(header: MapHeader, pages: PageSource) {
    this.header = header;
    this.#pages = pages;
    this.#firstSlotPage = 1 + header.recordPages + headPages(header);
  }

  of(digest: Digest): Entry[] {
    return this.lookup(digest).filter((entry) => entry.descriptor.digest === digest);
  }

  lookup(key: Digest): Entry[] {
    const [high, low] = keyWords(key);
    return this.#find(high, low, key);
  }

  tagged(name: string): Entry | undefined {
    const [high, low] = nameWords(name);
    return this.#find(high, low, undefined).find((entry) => refName(entry.descriptor) === name);
  }

  *all(): Generator<Entry> {
    for (let number = 1; number <= this.header.recordPages;) {
      // Copied: between two entries, the one who iterates may bring other pages into memory.
      const page = Buffer.from(this.#span(number, PAYLOAD));
      let offset = 0;
      let next = number + 1;
      while (offset < PAYLOAD && page[offset] !== 0) {
        const { length, prefix } = recordLength(page, offset);
        const start = offset + prefix;
        const end = start + length;
        if (end > PAYLOAD) {
          yield this.#record(number, offset);
          next = number + Math.ceil(end / PAYLOAD);
          break;
        }
        yield this.#decode(page, start);
        offset = end;
      }
      number = next;
    }
  }

  /** `index.json` without its entries. */
  head(): IndexHead {
    const first = 1 + this.header.recordPages;
    try {
      const head: unknown = JSON.parse(this.#span(first, this.header.headLength).toString());
      if (typeof head === 'object' && head !== null && !Array.isArray(head) && !isDeep(head)) {
        return head as IndexHead;
      }
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause;
    }
    throw new MapInvalid('the head of index.json cannot be read');
  }

  /** Every record whose key begins with these words, and is `key` where that is given. */
  #find(high: number, low: number, key: Digest | undefined): Entry[] {
    const { capacity, slotCount } = this.header;
    const found: Entry[] = [];
    let slot = idealSlot(high, capacity);
    let page = Math.floor(slot / SLOTS_PER_PAGE);
    let inPage = slot - page * SLOTS_PER_PAGE;
    let base = slot < slotCount ? this.#pages.locate(this.#firstSlotPage + page) : 0;
    let { bytes } = this.#pages;
    for (; slot < slotCount; slot++, inPage++) {
      if (inPage === SLOTS_PER_PAGE) {
        inPage = 0;
        base = this.#pages.locate(this.#firstSlotPage + ++page);
        ({ bytes } = this.#pages);
      }
      const at = base + inPage * SLOT;
      const record = bytes.readUInt32LE(at + 8);
      if (record === 0) break;
      const slotHigh = bytes.readUInt32LE(at);
      if (slotHigh > high) break;
      if (slotHigh < high) continue;
      const slotLow = bytes.readUInt32LE(at + 4);
      if (slotLow > low) break;
      if (slotLow < low) continue;
      if (key !== undefined && found.length === 0) expectDigest(key);
      const entry = this.#record(record, bytes.readUInt16LE(at + 12));
      if (key === undefined || isFoundBy(entry, key)) found.push(entry);
      // The page of slots may have gone to make room for that of the record.
      base = this.#pages.locate(this.#firstSlotPage + page);
      ({ bytes } = this.#pages);
    }
    return found;
  }

  #record(number: number, offset: number): Entry {
    if (number < 1 || number > this.header.recordPages || offset >= PAYLOAD) {
      throw new MapInvalid(`a record is said to be at ${offset} of page ${number}`);
    }
    const at = this.#pages.locate(number) + offset;
    const { bytes } = this.#pages;
    const { length, prefix } = recordLength(bytes, at);
    const end = offset + prefix + length;
    if (end <= PAYLOAD) return this.#decode(bytes, at + prefix);
    if (number + Math.ceil(end / PAYLOAD) - 1 > this.header.recordPages) {
      throw new MapInvalid(`a record of page ${number} is too long`);
    }
    return this.#decode(this.#span(number, end), offset + prefix);
  }

  #decode(bytes: Buffer, at: number): Entry {
    try {
      return decodeEntry(bytes, at);
    } catch (cause) {
      throw new MapInvalid('a record cannot be read', { cause });
    }
  }

  /** Payload bytes from the start of a page on, over as many pages as it takes. */
  #span(first: number, length: number): Buffer {
    const parts: Buffer[] = [];
    for (let done = 0, number = first; done < length; done += PAYLOAD, number++) {
      const at = this.#pages.locate(number);
      parts.push(Buffer.from(this.#pages.bytes.subarray(at, at + Math.min(PAYLOAD, length - done))));
    }
    return Buffer.concat(parts);
  }
}

/** The words in a slot are 64 bits of the key; here is the rest of the comparison. */
function isFoundBy({ descriptor }: Entry, key: Digest): boolean {
  if (descriptor.digest === key) return true;
  const { annotations } = descriptor;
  if (annotations === undefined) return false;
  if (annotations[Annotation.diffID] === key) return true;
  const list = annotations[Annotation.digest];
  return list !== undefined && (list === key || list.includes(key));
}

/** The length of a record as it stands before it, and how many bytes that takes. */
function recordLength(bytes: Buffer, at: number): { readonly length: number; readonly prefix: number } {
  const first = bytes[at] ?? 0;
  if (first < 128) return { length: first, prefix: 1 };
  const second = bytes[at + 1] ?? 0;
  if (second < 128) return { length: (first & 127) + second * 128, prefix: 2 };
  try {
    const { value, end } = readAt(at, () => readVarint(bytes));
    return { length: value, prefix: end - at };
  } catch (cause) {
    throw new MapInvalid('the length of a record cannot be read', { cause });
  }
}
