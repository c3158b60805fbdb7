import { Annotation, refName, type Digest } from '@layercache/oci';
import type { Entry } from './entry.js';
import type { EntrySource } from './entry-table.js';
import type { IndexHead } from './index-document.js';
import {
  MapInvalid,
  PAGE,
  PAYLOAD,
  SLOT,
  SLOTS_PER_PAGE,
  SlotKind,
  checkPage,
  headPages,
  idealSlot,
  keyWords,
  nameWords,
  type MapHeader,
} from './map-format.js';
import { decodeEntry, readAt, readVarint } from './record.js';

/** Where the pages of a map come from: a file, or memory. Gives pages that were checked. */
export interface PageSource {
  page(number: number): Buffer;
}

/** A map as it lies in memory, its header first. */
export class MemoryPages implements PageSource {
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  page(number: number): Buffer {
    const page = this.#bytes.subarray(number * PAGE, (number + 1) * PAGE);
    checkPage(page, number);
    return page;
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
    return this.#find(high, low, (entry, kind) => {
      if (kind === SlotKind.digest) return entry.descriptor.digest === key;
      if (kind !== SlotKind.counterpart) return false;
      const { annotations } = entry.descriptor;
      return (
        annotations?.[Annotation.diffID] === key || annotations?.[Annotation.digest]?.includes(key) === true
      );
    });
  }

  tagged(name: string): Entry | undefined {
    const [high, low] = nameWords(name);
    return this.#find(
      high,
      low,
      (entry, kind) => kind === SlotKind.name && refName(entry.descriptor) === name,
    )[0];
  }

  *all(): Generator<Entry> {
    for (let number = 1; number <= this.header.recordPages;) {
      const page = this.#pages.page(number);
      let offset = 0;
      let next = number + 1;
      while (offset < PAYLOAD && page[offset] !== 0) {
        const { value: length, end } = readAt(offset, () => readVarint(page));
        if (end + length <= PAYLOAD) {
          yield this.#decode(page, end);
          offset = end + length;
        } else {
          yield this.#record(number, offset);
          next = number + Math.ceil((end + length) / PAYLOAD);
          break;
        }
      }
      number = next;
    }
  }

  /** `index.json` without its entries. */
  head(): IndexHead {
    const first = 1 + this.header.recordPages;
    const bytes = this.#span(first, this.header.headLength);
    return JSON.parse(bytes.toString()) as IndexHead;
  }

  #find(high: number, low: number, accept: (entry: Entry, kind: number) => boolean): Entry[] {
    const { capacity, slotCount } = this.header;
    const found: Entry[] = [];
    let slot = idealSlot(high, capacity);
    let number = Math.floor(slot / SLOTS_PER_PAGE);
    let at = (slot - number * SLOTS_PER_PAGE) * SLOT;
    let page: Buffer | undefined;
    for (; slot < slotCount; slot++, at += SLOT) {
      if (at === PAYLOAD) {
        number++;
        at = 0;
        page = undefined;
      }
      page ??= this.#pages.page(this.#firstSlotPage + number);
      const record = page.readUInt32LE(at + 8);
      if (record === 0) break;
      const slotHigh = page.readUInt32LE(at);
      if (slotHigh < high) continue;
      if (slotHigh > high) break;
      const slotLow = page.readUInt32LE(at + 4);
      if (slotLow < low) continue;
      if (slotLow > low) break;
      const kind = page.readUInt16LE(at + 14);
      const entry = this.#record(record, page.readUInt16LE(at + 12));
      if (accept(entry, kind)) found.push(entry);
    }
    return found;
  }

  #record(number: number, offset: number): Entry {
    const page = this.#pages.page(number);
    const { value: length, end } = readAt(offset, () => readVarint(page));
    if (end + length <= PAYLOAD) return this.#decode(page, end);
    if (number + Math.ceil((end + length) / PAYLOAD) - 1 > this.header.recordPages) {
      throw new MapInvalid(`a record of page ${number} is too long`);
    }
    return this.#decode(this.#span(number, end + length), end);
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
      parts.push(this.#pages.page(number).subarray(0, Math.min(PAYLOAD, length - done)));
    }
    return Buffer.concat(parts);
  }
}
