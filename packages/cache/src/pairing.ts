import { Readable } from 'node:stream';
import {
  Annotation,
  Digester,
  IntegrityError,
  LayercacheError,
  SingleFlight,
  claimedDiffID,
  layerForm,
  uncompressedMediaType,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { openBlob } from './open-blob.js';
import { decompress } from './decompress.js';

/** Brings a blob here that is known but not on this disk. Rejects with `NOT_FOUND` when nobody has it. */
export type BlobSupply = (descriptor: Descriptor, signal: AbortSignal | undefined) => Promise<void>;

/**
 * Turns claims into proofs: decompresses a layer, hashes what comes out, and writes down what it found. A
 * claim that turns out to be wrong is replaced by the truth, and whoever relied on it gets an error.
 */
export class Pairing {
  readonly #layout: OciLayout;
  readonly #supply: BlobSupply;
  readonly #logger: Logger;
  readonly #flights = new SingleFlight<Digest>();

  constructor(layout: OciLayout, supply: BlobSupply, logger: Logger) {
    this.#layout = layout;
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
    for await (const bytes of await this.tar(descriptor, signal, touch)) digester.update(bytes as Uint8Array);
    return digester.digest();
  }

  /**
   * Decompresses a layer into a blob of its own, verified, and makes it an entry.
   *
   * @throws IntegrityError `DIFFID_MISMATCH` when another diffID was claimed: nothing is kept then
   */
  materialise(descriptor: Descriptor, signal?: AbortSignal): Promise<Digest> {
    return this.#flights.run(`materialise ${descriptor.digest}`, signal, async (shared) => {
      const claimed = claimedDiffID(descriptor);
      const tar = await this.tar(descriptor, shared);
      let written: { digest: Digest; size: number };
      try {
        written = await this.#layout.write(tar, {
          algorithm: claimAlgorithm(descriptor),
          derived: true,
          ...(claimed === undefined ? {} : { digest: claimed }),
          signal: shared,
        });
      } catch (error) {
        // The layer's own bytes were checked on their way in, so this is the tar's digest.
        if (
          error instanceof IntegrityError &&
          error.expected === claimed &&
          typeof error.found === 'string'
        ) {
          return this.settle(descriptor, error.found);
        }
        throw error;
      }
      const diffID = await this.settle(descriptor, written.digest);
      await this.#layout.put(
        {
          mediaType: uncompressedMediaType(descriptor.mediaType),
          digest: diffID,
          size: written.size,
          annotations: { [Annotation.digest]: descriptor.digest },
        },
        { proven: true },
      );
      return diffID;
    });
  }

  /**
   * The tar of a layer, streamed from its compressed form, whose own digest is checked on the way. The caller
   * checks the diffID.
   */
  async tar(descriptor: Descriptor, signal?: AbortSignal, touch = true): Promise<Readable> {
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
    // Also when nobody ever reads.
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
    await this.#layout.put(withAnnotations(descriptor, { [Annotation.diffID]: diffID }), { proven: true });
    if (claimed === undefined || claimed === diffID) return diffID;
    this.#logger.warn({ message: 'wrong diffID claimed', digest: descriptor.digest, claimed, diffID });
    throw new IntegrityError(
      'DIFFID_MISMATCH',
      `layer ${descriptor.digest} was said to have the diffID ${claimed}, but its tar hashes to ${diffID}: do not trust where the claim came from`,
      { expected: claimed, found: diffID },
    );
  }
}

function claimAlgorithm(descriptor: Descriptor): 'sha256' | 'sha512' {
  return claimedDiffID(descriptor)?.startsWith('sha512:') === true ? 'sha512' : 'sha256';
}
