import { type FileSystem } from './file-system.js';
import { MapInvalid, PAGE, checkPage, decodeHeader, mapSize } from './map-format.js';
import { MapReader, type PageSource } from './map-reader.js';

/** At most 32 MiB of pages are held. Memory is taken from the system as pages come. */
const CACHED_PAGES = 8192;

/** The pages of a map file, read where they are needed and kept in a cache of bounded size. */
export class FilePages implements PageSource {
  readonly bytes: Buffer;
  readonly #files: FileSystem;
  readonly #fd: number;
  readonly #places: number;
  /** Which page is in a place; 0: none, for the header is not read through here. */
  readonly #held: Uint32Array;

  /** @param count pages in the file */
  constructor(files: FileSystem, fd: number, count: number) {
    this.#files = files;
    this.#fd = fd;
    this.#places = Math.min(count, CACHED_PAGES);
    this.#held = new Uint32Array(this.#places);
    this.bytes = Buffer.allocUnsafeSlow(this.#places * PAGE);
  }

  locate(number: number): number {
    // Page n has one place where it can be.
    const place = number % this.#places;
    if (this.#held[place] !== number) this.#load(number, place);
    return place * PAGE;
  }

  #load(number: number, place: number): void {
    this.#held[place] = 0;
    const at = place * PAGE;
    const count = this.#files.readSync(this.#fd, this.bytes, at, PAGE, number * PAGE);
    if (count !== PAGE) throw new MapInvalid(`page ${number} is not there`);
    checkPage(this.bytes.subarray(at, at + PAGE), number);
    this.#held[place] = number;
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
