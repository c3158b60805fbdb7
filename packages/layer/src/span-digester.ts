import { Digester, type Digest } from '@layercache/oci';

/** Hashes each span of a stream by itself. Spans may share a byte: the next starts before the last has ended. */
export class SpanDigester {
  readonly #digests: Digest[] = [];
  /** Spans that start behind the bytes seen so far: their first byte, and where the one before ends. */
  readonly #coming: { readonly start: number; readonly end: number }[] = [];
  #current: Digester | undefined;
  #offset = 0;

  /** Announces the next span, before its bytes are seen. */
  begin(start: number, endOfPrevious: number): void {
    this.#coming.push({ start, end: endOfPrevious });
  }

  update(bytes: Uint8Array): void {
    let from = 0;
    for (;;) {
      const next = this.#coming[0];
      if (next === undefined || next.end > this.#offset + bytes.length) break;
      this.#coming.shift();
      this.#current?.update(bytes.subarray(from, next.end - this.#offset));
      this.#close();
      this.#current = new Digester();
      from = next.start - this.#offset;
    }
    this.#current?.update(bytes.subarray(from));
    this.#offset += bytes.length;
  }

  /** The digests of all spans, the last of which ends here. */
  finish(): readonly Digest[] {
    this.#close();
    return this.#digests;
  }

  #close(): void {
    if (this.#current !== undefined) this.#digests.push(this.#current.digest());
    this.#current = undefined;
  }
}
