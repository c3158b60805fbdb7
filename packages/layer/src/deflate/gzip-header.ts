const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;
const RESERVED = 0xe0;

type Field = 'fixed' | 'extra length' | 'extra' | 'name' | 'comment' | 'crc' | 'done';

/** Follows one gzip member header (RFC 1952 section 2.3), whose length is only known when it has been read. */
export class GzipHeader {
  /** Why the bytes are no gzip header, once that is known. */
  problem: string | undefined;
  #field: Field = 'fixed';
  #flags = 0;
  /** Bytes of the current field that have passed. */
  #at = 0;
  #extra = 0;

  /** Whether no byte has been taken yet. */
  get untouched(): boolean {
    return this.#field === 'fixed' && this.#at === 0;
  }

  get done(): boolean {
    return this.#field === 'done';
  }

  /** Takes the next byte of the stream. Not to be called once `done` or with a `problem`. */
  take(byte: number): void {
    const at = this.#at++;
    switch (this.#field) {
      case 'fixed':
        this.#takeFixed(at, byte);
        return;
      case 'extra length':
        this.#extra |= byte << (8 * at);
        if (at === 1) this.#next(this.#extra === 0 ? 'extra' : 'extra length');
        return;
      case 'extra':
        if (at + 1 === this.#extra) this.#next('extra');
        return;
      case 'name':
      case 'comment':
        if (byte === 0) this.#next(this.#field);
        return;
      default:
        if (at === 1) this.#next('crc');
    }
  }

  #takeFixed(at: number, byte: number): void {
    if (at === 0 && byte !== 0x1f) this.problem = 'there is no gzip magic number';
    else if (at === 1 && byte !== 0x8b) this.problem = 'there is no gzip magic number';
    else if (at === 2 && byte !== 8) this.problem = `the compression method is ${byte}, not deflate`;
    else if (at === 3) {
      this.#flags = byte;
      if ((byte & RESERVED) !== 0) this.problem = 'reserved flags of the gzip header are set';
    } else if (at === 9) this.#next('fixed');
  }

  /** Goes to the first field after `field` that the flags announce. */
  #next(field: Field): void {
    this.#at = 0;
    const has = (flag: number): boolean => (this.#flags & flag) !== 0;
    if (field === 'extra length') this.#field = 'extra';
    else if (field === 'fixed' && has(FEXTRA)) this.#field = 'extra length';
    else if ((field === 'fixed' || field === 'extra') && has(FNAME)) this.#field = 'name';
    else if (field !== 'comment' && field !== 'crc' && has(FCOMMENT)) this.#field = 'comment';
    else if (field !== 'crc' && has(FHCRC)) this.#field = 'crc';
    else this.#field = 'done';
  }
}
