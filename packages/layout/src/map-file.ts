import { type FileSystem } from './file-system.js';
import { MapInvalid, PAGE, checkPage, decodeHeader, mapSize } from './map-format.js';
import { MapReader, type PageSource } from './map-reader.js';

/** At most 32 MiB of pages are held. */
const MAX_PLACES = 8192;
const FIRST_PLACES = 16;

/** The pages of a map file, read where they are needed and kept in memory that grows with them, up to a bound. */
export class FilePages implements PageSource {
  bytes = Buffer.allocUnsafeSlow(FIRST_PLACES * PAGE);
  readonly #files: FileSystem;
  readonly #fd: number;
  /** Where in `bytes` a page is, counted in pages from 1; 0: it is not. */
  readonly #places: Uint16Array;
  /** Which page is in a place. */
  readonly #held: Uint32Array;
  readonly #maxPlaces: number;
  #used = 0;
  /** The place that is given to another page next, once all are used. */
  #hand = 0;

  /**
   * @param count pages in the file
   * @param maxPlaces how many pages are held at most
   */
  constructor(files: FileSystem, fd: number, count: number, maxPlaces = MAX_PLACES) {
    this.#files = files;
    this.#fd = fd;
    this.#places = new Uint16Array(count);
    this.#maxPlaces = maxPlaces;
    this.#held = new Uint32Array(maxPlaces + 1);
  }

  locate(number: number): number {
    const place = this.#places[number] ?? 0;
    return (place === 0 ? this.#load(number) : place - 1) * PAGE;
  }

  #load(number: number): number {
    const place = this.#takePlace();
    const at = (place - 1) * PAGE;
    const count = this.#files.readSync(this.#fd, this.bytes, at, PAGE, number * PAGE);
    if (count !== PAGE) throw new MapInvalid(`page ${number} is not there`);
    checkPage(this.bytes.subarray(at, at + PAGE), number);
    this.#places[number] = place;
    this.#held[place] = number;
    return place - 1;
  }

  #takePlace(): number {
    if (this.#used < this.#maxPlaces) {
      if (this.#used * PAGE === this.bytes.length) {
        const larger = Buffer.allocUnsafeSlow(this.bytes.length * 2);
        this.bytes.copy(larger);
        this.bytes = larger;
      }
      return ++this.#used;
    }
    this.#hand = (this.#hand % this.#maxPlaces) + 1;
    this.#places[this.#held[this.#hand] ?? 0] = 0;
    return this.#hand;
  }
}

/** The map file, opened. */
export interface MapFile {
  readonly fd: number;
  readonly ino: bigint;
  readonly reader: MapReader;
}

/** @throws MapInvalid when it is damaged, or of another version; the system's error when it cannot be opened */
export function openMapFile(files: FileSystem, path: string): MapFile {
  const fd = files.openSync(path, 'r');
  try {
    const facts = files.fstatSync(fd);
    const page = Buffer.alloc(PAGE);
    if (files.readSync(fd, page, 0, PAGE, 0) !== PAGE) throw new MapInvalid('the map is cut short');
    const header = decodeHeader(page);
    if (BigInt(mapSize(header)) !== facts.size) throw new MapInvalid('the map is cut short');
    return {
      fd,
      ino: facts.ino,
      reader: new MapReader(header, new FilePages(files, fd, mapSize(header) / PAGE)),
    };
  } catch (error) {
    files.closeSync(fd);
    throw error;
  }
}
