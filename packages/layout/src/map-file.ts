import { type FileSystem } from './file-system.js';
import { MapInvalid, PAGE, checkPage, decodeHeader, mapSize } from './map-format.js';
import { MapReader, type PageSource } from './map-reader.js';

/** At most 32 MiB of pages are held. */
const CACHED_PAGES = 8192;

/** The pages of a map file, read where they are needed and kept in a cache of bounded size. */
export class FilePages implements PageSource {
  readonly #files: FileSystem;
  readonly #fd: number;
  /** Page `n` can only be in place `n % CACHED_PAGES`. */
  readonly #cache: (Buffer | undefined)[] = [];
  readonly #numbers: number[] = [];

  constructor(files: FileSystem, fd: number) {
    this.#files = files;
    this.#fd = fd;
  }

  page(number: number): Buffer {
    const place = number % CACHED_PAGES;
    const cached = this.#cache[place];
    if (cached !== undefined && this.#numbers[place] === number) return cached;
    const page = cached ?? Buffer.allocUnsafeSlow(PAGE);
    // While it is being replaced, the place holds no page that is whole.
    this.#numbers[place] = -1;
    const count = this.#files.readSync(this.#fd, page, 0, PAGE, number * PAGE);
    if (count !== PAGE) throw new MapInvalid(`page ${number} is not there`);
    checkPage(page, number);
    while (this.#cache.length <= place) this.#cache.push(undefined);
    this.#cache[place] = page;
    this.#numbers[place] = number;
    return page;
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
    return { fd, ino: facts.ino, reader: new MapReader(header, new FilePages(files, fd)) };
  } catch (error) {
    files.closeSync(fd);
    throw error;
  }
}
