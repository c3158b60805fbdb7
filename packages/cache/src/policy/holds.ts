import type { Descriptor } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';

/** Open files are scarce: the usual limit of a process is 1,024. No image in use has as many layers. */
const MAX_HOLDS = 256;

/** Blobs of one image on its way, kept from being evicted for one another, or by others, until it is whole. */
export class Holds {
  readonly #layout: OciLayout;
  readonly #held: Disposable[] = [];

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** Whether the blob is here. If so it stays. */
  async hold({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Promise<boolean> {
    if (this.#held.length >= MAX_HOLDS) return this.#layout.has(digest, size);
    const hold = await this.#layout.hold(digest, size);
    if (hold !== undefined) this.#held.push(hold);
    return hold !== undefined;
  }

  [Symbol.dispose](): void {
    for (const hold of this.#held.splice(0)) hold[Symbol.dispose]();
  }
}
