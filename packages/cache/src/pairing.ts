import { Readable } from 'node:stream';
import {
  Annotation,
  Digester,
  IntegrityError,
  LayercacheError,
  SingleFlight,
  claimedDiffID,
  errorFields,
  isLayercacheError,
  layerForm,
  uncompressedMediaType,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import { cannotStore, type OciLayout, type WrittenBlob } from '@layercache/layout';
import { openBlob } from './open-blob.js';
import { decompress } from './decompress.js';
import type { IndexStore } from './indexes/index-store.js';
import { parallelTar } from './indexes/parallel-tar.js';

/** Brings a blob here that is known but not on this disk. Rejects with `NOT_FOUND` when nobody has it. */
export type BlobSupply = (descriptor: Descriptor, signal: AbortSignal | undefined) => Promise<void>;

/**
 * Turns claims into proofs: decompresses a layer, hashes what comes out, and writes down what it found. A
 * claim that turns out to be wrong is replaced by the truth, and whoever relied on it gets an error.
 */
export class Pairing {
  readonly #layout: OciLayout;
  readonly #supply: BlobSupply;
  readonly #indexes: IndexStore;
  readonly #logger: Logger;
  readonly #flights = new SingleFlight<Digest>();

  constructor(layout: OciLayout, supply: BlobSupply, indexes: IndexStore, logger: Logger) {
    this.#layout = layout;
    this.#indexes = indexes;
    this.#supply = supply;
    this.#logger = logger;
  }

  /**
   * The diffID of a compressed layer, found by decompressing it; nothing is kept but the proof.
   *
   * @throws IntegrityError `DIFFID_MISMATCH` when another diffID was claimed
   */
  prove(descriptor: Descriptor, signal?: AbortSignal): Promise<Digest> {
    return this.#flights.run(`prove ${descriptor.digest}`, signal, async (shared) => {
      return this.settle(descriptor, await this.diffID(descriptor, shared));
    });
  }

  /**
   * The diffID of a compressed layer, found by decompressing it, whatever is claimed. Nothing is written down.
   *
   * @param touch whether that is a use of the layer
   */
  async diffID(descriptor: Descriptor, signal?: AbortSignal, touch = true): Promise<Digest> {
    const digester = new Digester(claimAlgorithm(descriptor));
    for await (const bytes of await this.#stream(descriptor, signal, touch))
      digester.update(bytes as Uint8Array);
    return digester.digest();
  }

  /**
   * Decompresses a layer into a blob of its own, verified, and makes it an entry.
   *
   * @param wanted `pair`: this layer's tar, so that the pair is proven. `tar`: the tar that the claimed diffID names,
   * which its digest proves, however it was made
   * @throws IntegrityError `DIFFID_MISMATCH` when another diffID was claimed: nothing is kept then
   */
  materialise(
    descriptor: Descriptor,
    signal?: AbortSignal,
    wanted: 'pair' | 'tar' = 'pair',
  ): Promise<Digest> {
    return this.#flights.run(`materialise ${wanted} ${descriptor.digest}`, signal, async (shared) => {
      const proven = this.#isProven(descriptor);
      const inParallel =
        proven || wanted === 'tar' ? await this.#writeInParallel(descriptor, shared) : undefined;
      const written = inParallel ?? (await this.#write(descriptor, shared));
      if (inParallel === undefined) await this.settle(descriptor, written.digest);
      const pair = { [Annotation.digest]: descriptor.digest };
      await this.#layout.put(
        {
          mediaType: uncompressedMediaType(descriptor.mediaType),
          digest: written.digest,
          size: written.size,
          annotations: pair,
        },
        { proven: proven || inParallel === undefined },
      );
      return written.digest;
    });
  }

  async #write(descriptor: Descriptor, signal: AbortSignal): Promise<WrittenBlob> {
    const claimed = claimedDiffID(descriptor);
    try {
      return await this.#layout.write(await this.#stream(descriptor, signal), {
        algorithm: claimAlgorithm(descriptor),
        derived: true,
        ...(claimed === undefined ? {} : { digest: claimed }),
        signal,
      });
    } catch (error) {
      // The layer's own bytes were checked on their way in, so this is the tar's digest.
      if (error instanceof IntegrityError && error.expected === claimed && typeof error.found === 'string')
        await this.settle(descriptor, error.found);
      throw error;
    }
  }

  /** Undefined if there is no usable index, if it gave wrong bytes, or if the layer was evicted meanwhile. */
  async #writeInParallel(descriptor: Descriptor, signal: AbortSignal): Promise<WrittenBlob | undefined> {
    await this.#supply(descriptor, signal);
    const found = await parallelTar(this.#layout, this.#indexes, descriptor, signal);
    if (found === undefined) return undefined;
    const { index, tar } = found;
    try {
      return await this.#layout.write(tar, { digest: index.diffID, derived: true, signal });
    } catch (error) {
      if (!isLayercacheError(error, 'COMPRESSION_INVALID', 'DIGEST_MISMATCH', 'NOT_FOUND')) throw error;
      return undefined;
    }
  }

  /**
   * The tar of a layer, streamed from its compressed form: on all cores where this machine has indexed it. The caller
   * checks the diffID.
   */
  async tar(descriptor: Descriptor, signal?: AbortSignal): Promise<Readable> {
    if (this.#isProven(descriptor)) {
      const tar = await this.#inParallel(descriptor, signal);
      if (tar !== undefined) return tar;
    }
    return this.#stream(descriptor, signal);
  }

  async #inParallel(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Readable | undefined> {
    await this.#supply(descriptor, signal);
    // Its spans are opened one by one, so it must not go before the last.
    const hold = await this.#layout.hold(descriptor.digest, descriptor.size);
    let tar: Readable | undefined;
    try {
      const found = await parallelTar(this.#layout, this.#indexes, descriptor, signal);
      if (hold === undefined || found === undefined) return undefined;
      tar = Readable.from(found.tar, { objectMode: false });
      tar.once('close', () => {
        hold[Symbol.dispose]();
      });
      return tar;
    } finally {
      if (tar === undefined) hold?.[Symbol.dispose]();
    }
  }

  /** The tar in one go. The digest of the compressed bytes is checked on the way. */
  async #stream(descriptor: Descriptor, signal: AbortSignal | undefined, touch = true): Promise<Readable> {
    const form = layerForm(descriptor.mediaType);
    if (form === undefined) {
      throw new LayercacheError(
        'COMPRESSION_INVALID',
        `${descriptor.digest} has the media type ${descriptor.mediaType}, which says nothing about its compression`,
      );
    }
    const compressed = await openBlob(this.#layout, this.#supply, descriptor, {
      signal,
      ...(touch ? {} : { touch }),
    });
    const tar = Readable.from(decompress(form, compressed, `layer ${descriptor.digest}`), {
      objectMode: false,
    });
    // Also when nobody ever reads. Who does hears of an error from the tar.
    compressed.on('error', () => undefined);
    tar.once('close', () => compressed.destroy());
    return tar;
  }

  /**
   * Writes down the diffID that decompressing a layer gave.
   *
   * @throws IntegrityError `DIFFID_MISMATCH` when another one was claimed
   */
  async settle(descriptor: Descriptor, diffID: Digest): Promise<Digest> {
    const claimed = claimedDiffID(descriptor);
    await this.#note(descriptor, diffID);
    if (claimed === undefined || claimed === diffID) return diffID;
    this.#logger.warn({ message: 'wrong diffID claimed', digest: descriptor.digest, claimed, diffID });
    throw new IntegrityError(
      'DIFFID_MISMATCH',
      `layer ${descriptor.digest} was said to have the diffID ${claimed}, but its tar hashes to ${diffID}: do not trust where the claim came from`,
      { expected: claimed, found: diffID },
    );
  }

  /** One that was removed meanwhile has no pair to note, and would come back without its bytes. */
  async #note(descriptor: Descriptor, diffID: Digest): Promise<void> {
    const { digest, size } = descriptor;
    const hold = await this.#layout.hold(digest, size);
    if (hold === undefined) return;
    try {
      if (this.#layout.lookup(digest).some((entry) => entry.descriptor.digest === digest))
        await this.#layout.put(withAnnotations(descriptor, { [Annotation.diffID]: diffID }), {
          proven: true,
        });
    } catch (error) {
      // It holds all the same, and is found again by whoever asks next.
      if (!cannotStore(error)) throw error;
      this.#logger.warn({ message: 'proof of a layer not kept', digest, diffID, ...errorFields(error) });
    } finally {
      hold[Symbol.dispose]();
    }
  }

  #isProven({ digest }: Descriptor): boolean {
    return this.#layout.lookup(digest).some((entry) => entry.descriptor.digest === digest && entry.proven);
  }
}

function claimAlgorithm(descriptor: Descriptor): 'sha256' | 'sha512' {
  return claimedDiffID(descriptor)?.startsWith('sha512:') === true ? 'sha512' : 'sha256';
}
