import { LayercacheError, type Descriptor } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import type { BlobSupply } from '../pairing.js';

/** How often a blob may be evicted between its arrival and its being held. */
const TRIES = 3;

/** Blobs of one image on its way, kept from being evicted for one another, or by others, until it is whole. */
export class Holds {
  readonly #layout: OciLayout;
  readonly #held: Disposable[] = [];

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** Whether the blob is here. If so it stays. */
  async hold({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Promise<boolean> {
    const hold = await this.#layout.hold(digest, size);
    if (hold !== undefined) this.#held.push(hold);
    return hold !== undefined;
  }

  /** Brings a blob here if it is not, and holds it: one that is evicted in between is brought again. */
  async supply(supply: BlobSupply, descriptor: Descriptor, signal: AbortSignal | undefined): Promise<void> {
    for (let attempt = 0; attempt < TRIES; attempt++) {
      await supply(descriptor, signal);
      if (await this.hold(descriptor)) return;
    }
    throw new LayercacheError(
      'NOT_FOUND',
      `blob ${descriptor.digest} was evicted as often as it was fetched: raise the limit of the cache`,
    );
  }

  [Symbol.dispose](): void {
    for (const hold of this.#held.splice(0)) hold[Symbol.dispose]();
  }
}
