import { LayercacheError } from '@layercache/oci';
import { decodeBytes } from '../tar/byte-string.js';

/** @throws LayercacheError `DOCUMENT_INVALID` */
export function refuseZtoc(problem: string): never {
  throw new LayercacheError(
    'DOCUMENT_INVALID',
    `the layer index (zTOC) is not valid: ${problem}; index the layer again`,
  );
}

/**
 * Reads flatbuffers from outside: the library's reader trusts its input, this one checks every offset. It also
 * counts what it hands out: tables may share their parts, so that a few bytes could stand for gigabytes.
 */
export class FlatbufferReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #budget: number;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#budget = bytes.length;
  }

  get root(): FlatbufferTable {
    return this.table(this.follow(0));
  }

  table(at: number): FlatbufferTable {
    this.#check(at, 4);
    const vtable = at - this.#view.getInt32(at, true);
    this.#check(vtable, 4);
    const size = this.#view.getUint16(vtable, true);
    if (size < 4 || size % 2 !== 0) refuseZtoc('a table has no fields');
    this.#check(vtable, size);
    return new FlatbufferTable(this, at, vtable, size);
  }

  /** Where an offset stored at `at` leads. */
  follow(at: number): number {
    return at + this.uint32(at);
  }

  /** Where the elements of a vector start, and how many there are. */
  vector(at: number, elementSize: number): { readonly start: number; readonly length: number } {
    const start = this.follow(at) + 4;
    const length = this.uint32(start - 4);
    this.#check(start, length * elementSize);
    this.#budget -= length * elementSize;
    if (this.#budget < 0) refuseZtoc('its parts overlap');
    return { start, length };
  }

  bytes(at: number): Uint8Array {
    const { start, length } = this.vector(at, 1);
    return this.#bytes.subarray(start, start + length);
  }

  /** Text as `decodeBytes` makes it. */
  text(at: number): string {
    const { start, length } = this.vector(at, 1);
    const end = start + length;
    // Nearly all of it is ASCII, of which no copy has to be made.
    for (let index = start; index < end; index++) {
      if ((this.#bytes[index] ?? 0) >= 0x80) return decodeBytes(this.#bytes.subarray(start, end));
    }
    return this.#bytes.toString('latin1', start, end);
  }

  uint16(at: number): number {
    this.#check(at, 2);
    return this.#view.getUint16(at, true);
  }

  uint32(at: number): number {
    this.#check(at, 4);
    return this.#view.getUint32(at, true);
  }

  int32(at: number): number {
    this.#check(at, 4);
    return this.#view.getInt32(at, true);
  }

  int8(at: number): number {
    this.#check(at, 1);
    return this.#view.getInt8(at);
  }

  int64(at: number): number {
    this.#check(at, 8);
    // Not as a BigInt, which is three times slower.
    const value = this.#view.getInt32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
    if (!Number.isSafeInteger(value)) refuseZtoc('a number is out of range');
    return value;
  }

  #check(at: number, size: number): void {
    if (at < 0 || at + size > this.#bytes.length) refuseZtoc('an offset leads out of it');
  }
}

/** One table; fields are numbered as in the schema, and have their defaults where they are absent. */
export class FlatbufferTable {
  readonly #reader: FlatbufferReader;
  readonly #at: number;
  readonly #vtable: number;
  readonly #size: number;

  constructor(reader: FlatbufferReader, at: number, vtable: number, size: number) {
    this.#reader = reader;
    this.#at = at;
    this.#vtable = vtable;
    this.#size = size;
  }

  #field(index: number): number | undefined {
    const slot = 4 + index * 2;
    const offset = slot < this.#size ? this.#reader.uint16(this.#vtable + slot) : 0;
    return offset === 0 ? undefined : this.#at + offset;
  }

  int8(index: number, otherwise: number): number {
    const at = this.#field(index);
    return at === undefined ? otherwise : this.#reader.int8(at);
  }

  int32(index: number): number {
    const at = this.#field(index);
    return at === undefined ? 0 : this.#reader.int32(at);
  }

  uint32(index: number): number {
    const at = this.#field(index);
    return at === undefined ? 0 : this.#reader.uint32(at);
  }

  int64(index: number): number {
    const at = this.#field(index);
    return at === undefined ? 0 : this.#reader.int64(at);
  }

  bytes(index: number): Uint8Array {
    const at = this.#field(index);
    return at === undefined ? new Uint8Array(0) : this.#reader.bytes(at);
  }

  text(index: number): string {
    const at = this.#field(index);
    return at === undefined ? '' : this.#reader.text(at);
  }

  table(index: number): FlatbufferTable | undefined {
    const at = this.#field(index);
    return at === undefined ? undefined : this.#reader.table(this.#reader.follow(at));
  }

  *tables(index: number): Generator<FlatbufferTable> {
    for (const at of this.#elements(index)) yield this.#reader.table(this.#reader.follow(at));
  }

  *strings(index: number): Generator<Uint8Array> {
    for (const at of this.#elements(index)) yield this.#reader.bytes(at);
  }

  *#elements(index: number): Generator<number> {
    const at = this.#field(index);
    if (at === undefined) return;
    const { start, length } = this.#reader.vector(at, 4);
    for (let element = 0; element < length; element++) yield start + element * 4;
  }
}
