import type { Readable } from 'node:stream';
import { Readable as ReadableStream } from 'node:stream';
import {
  Digester,
  IntegrityError,
  LayercacheError,
  digestAlgorithm,
  isLayercacheError,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { cannotStore, type Entry, type OciLayout } from '@layercache/layout';
import { openBlob } from './open-blob.js';
import { checkBlob } from './check-blob.js';
import { layerRecord, type LayerRecord } from './layer-record.js';
import { countedStream } from './metrics/counted-stream.js';
import type { MetricsRecorder } from './metrics/metrics.js';
import type { BlobSupply, Pairing } from './pairing.js';

export interface ReadLayerOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface UncompressedOptions extends ReadLayerOptions {
  /** Whether a tar that had to be decompressed becomes a blob of the cache. The cache's own setting unless said. */
  readonly keep?: boolean | undefined;
}

interface LayerContext {
  readonly layout: OciLayout;
  readonly pairing: Pairing;
  readonly supply: BlobSupply;
  readonly keepUncompressed: boolean;
  readonly metrics: MetricsRecorder;
}

/** One layer, whichever of its names it was asked by. A snapshot of what the cache knows; reading is live. */
export class Layer {
  readonly #context: LayerContext;
  readonly #record: LayerRecord;

  constructor(context: LayerContext, record: LayerRecord) {
    this.#context = context;
    this.#record = record;
  }

  /** The digest or diffID it was asked by. */
  get key(): Digest {
    return this.#record.key;
  }

  /** The digest of the uncompressed tar: claimed, unless {@link proven}. */
  get diffID(): Digest | undefined {
    return this.#record.diffID;
  }

  /** Digests of its compressed forms, here or not, sorted. */
  get digests(): readonly Digest[] {
    return this.#record.digests;
  }

  /** Entries of its compressed forms. */
  get compressedForms(): readonly Descriptor[] {
    return this.#record.compressed.map((entry) => entry.descriptor);
  }

  /** The entry of the form `tar`, when it is one. */
  get uncompressedForm(): Descriptor | undefined {
    return this.#record.tar?.descriptor;
  }

  /** Of the form that `key` names; of a compressed form when that one is not an entry. */
  get mediaType(): string {
    return this.#named().mediaType;
  }

  /** Bytes of each form, where known. */
  get size(): { readonly compressed: number | undefined; readonly uncompressed: number | undefined } {
    return {
      compressed: (this.#isDiffID() ? this.#record.compressed[0] : this.#own())?.descriptor.size,
      uncompressed: this.#record.tar?.descriptor.size,
    };
  }

  /**
   * Whether this machine has decompressed the layer and seen that digest and diffID belong together. Asked by
   * diffID, that goes for every compressed digest in {@link digests}.
   */
  get proven(): boolean {
    const { compressed, tar } = this.#record;
    if (!this.#isDiffID()) return this.#own()?.proven ?? false;
    // A tar that nobody compressed is its own diffID: there is no pair to prove.
    const proven = new Set(
      compressed.filter((entry) => entry.proven).map((entry) => entry.descriptor.digest),
    );
    if (tar !== undefined && this.digests.length === 0) return true;
    return proven.size > 0 && this.digests.every((digest) => proven.has(digest));
  }

  /**
   * The compressed bytes, hashed on the way: the stream fails before its end when they are wrong. Asked by
   * diffID, a pair that is only claimed is proven first.
   *
   * @throws LayercacheError `NOT_FOUND` when no compressed form is in the cache: it never compresses, because
   * compressors differ
   */
  compressed(options: ReadLayerOptions = {}): Promise<Readable> {
    return this.#handedOut(() => this.#compressed(options));
  }

  async #compressed(options: ReadLayerOptions): Promise<Readable> {
    const { layout, supply } = this.#context;
    const form = this.#isDiffID() ? await this.#provenForm(options.signal) : this.#own()?.descriptor;
    if (form !== undefined) {
      return openBlob(layout, supply, form, { signal: options.signal });
    }
    throw new LayercacheError(
      'NOT_FOUND',
      `the compressed form of layer ${this.key} is not in the cache, and its tar is never compressed again: fetch it from a registry`,
    );
  }

  /**
   * The uncompressed tar, hashed on the way: the stream fails before its end when the bytes are not the
   * diffID's. Decompressed when only a compressed form is here, and then kept.
   *
   * @throws IntegrityError `DIFFID_MISMATCH` when the claimed diffID is wrong
   * @throws LayercacheError `COMPRESSION_INVALID`, `NOT_FOUND`
   */
  uncompressed(options: UncompressedOptions = {}): Promise<Readable> {
    return this.#handedOut(() => this.#uncompressed(options));
  }

  async #uncompressed(options: UncompressedOptions): Promise<Readable> {
    const own = this.#own();
    const keep = options.keep ?? this.#context.keepUncompressed;
    if (own === undefined || own.descriptor.digest === this.#record.diffID)
      return this.#byDiffID(keep, options.signal);
    if (!own.proven && (await this.#hasTar()))
      await this.#context.pairing.prove(own.descriptor, options.signal);
    const tar = await this.#openTar(options.signal);
    if (tar !== undefined) return tar;
    return this.#decompressed(own.descriptor, keep, options.signal);
  }

  /**
   * Proves the pair now, if it is not proven yet, and resolves with the diffID.
   *
   * @throws IntegrityError `DIFFID_MISMATCH`
   */
  async prove(options: ReadLayerOptions = {}): Promise<Digest> {
    const own = this.#own();
    if (own !== undefined && !this.#isDiffID())
      return this.#context.pairing.prove(own.descriptor, options.signal);
    const form = await this.#provenForm(options.signal);
    if (form === undefined || this.diffID === undefined) {
      throw new LayercacheError(
        'NOT_FOUND',
        `no compressed form of layer ${this.key} is in the cache: nothing to prove`,
      );
    }
    return this.diffID;
  }

  async #byDiffID(keep: boolean, signal: AbortSignal | undefined): Promise<Readable> {
    if (!this.#isDiffID()) {
      throw new LayercacheError(
        'NOT_FOUND',
        `layer ${this.key} is not in the cache; a tar claims to be it uncompressed, which cannot be checked without it`,
      );
    }
    const here = await this.#openTar(signal);
    if (here !== undefined) return here;
    let last: unknown;
    for (const { descriptor } of this.#record.compressed) {
      try {
        return await this.#decompressed(descriptor, keep, signal);
      } catch (error) {
        // Another counterpart may still be good.
        if (
          !isLayercacheError(error, 'DIFFID_MISMATCH', 'DIGEST_MISMATCH', 'NOT_FOUND', 'COMPRESSION_INVALID')
        )
          throw error;
        last ??= error;
      }
    }
    const tar = this.#record.tar?.descriptor;
    if (last === undefined && tar !== undefined) {
      const { layout, supply } = this.#context;
      return openBlob(layout, supply, tar, { signal });
    }
    throw (
      (last as Error | undefined) ??
      new LayercacheError(
        'NOT_FOUND',
        `the tar of layer ${this.key} is not in the cache, nor a compressed form of it`,
      )
    );
  }

  async #decompressed(
    descriptor: Descriptor,
    keep: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Readable> {
    const { layout, pairing } = this.#context;
    if (keep) {
      const kept = await this.#kept(descriptor, signal);
      if (kept !== undefined) return kept;
    }
    const { diffID } = this.#record;
    // Without a claim there is nothing to hold the bytes against: find the diffID first.
    const expected = diffID ?? (await pairing.prove(descriptor, signal));
    const tar = await pairing.tar(descriptor, signal);
    const check = (): Promise<void> => checkBlob(layout, descriptor.digest, signal);
    const stream = ReadableStream.from(checked(tar, descriptor, expected, check), { objectMode: false });
    stream.once('close', () => tar.destroy());
    return stream;
  }

  /** The tar as a blob; undefined when it cannot be stored. It need not be kept to be read. */
  async #kept(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Readable | undefined> {
    const { layout, pairing } = this.#context;
    let diffID: Digest;
    try {
      diffID = await pairing.materialise(descriptor, signal, this.#isDiffID() ? 'tar' : 'pair');
    } catch (error) {
      if (cannotStore(error)) return undefined;
      throw error;
    }
    try {
      return await layout.openToRead(diffID, { signal });
    } catch (error) {
      // Others wanted its room before it was opened.
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** A hit when some form of the layer is on this disk, so that nothing has to be fetched. */
  async #handedOut(read: () => Promise<Readable>): Promise<Readable> {
    const { layout, metrics } = this.#context;
    const { tar, compressed } = this.#record;
    const forms = [...compressed, ...(tar === undefined ? [] : [tar])];
    const here = await Promise.all(forms.map(({ descriptor: { digest, size } }) => layout.has(digest, size)));
    metrics.count(here.includes(true) ? 'hits' : 'misses');
    return countedStream(await metrics.time('read', read), (count) => {
      metrics.count('bytesServed', count);
    });
  }

  async #provenForm(signal: AbortSignal | undefined): Promise<Descriptor | undefined> {
    let last: unknown;
    for (const { descriptor, proven } of this.#record.compressed) {
      try {
        await this.#context.supply(descriptor, signal);
        if (!proven) await this.#context.pairing.prove(descriptor, signal);
        return descriptor;
      } catch (error) {
        if (
          !isLayercacheError(error, 'DIFFID_MISMATCH', 'DIGEST_MISMATCH', 'NOT_FOUND', 'COMPRESSION_INVALID')
        )
          throw error;
        last ??= error;
      }
    }
    if (last !== undefined) throw last as Error;
    return undefined;
  }

  async #hasTar(): Promise<boolean> {
    const tar = this.#record.tar?.descriptor ?? layerRecord(this.#context.layout, this.key)?.tar?.descriptor;
    return tar !== undefined && this.#context.layout.has(tar.digest, tar.size);
  }

  /** Undefined when it is not here. */
  async #openTar(signal: AbortSignal | undefined): Promise<Readable | undefined> {
    if (!(await this.#hasTar())) return undefined;
    try {
      return await this.#context.layout.openToRead(this.#record.diffID ?? this.key, { signal });
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** The entry that `key` is the digest of. */
  #own(): Entry | undefined {
    const { tar, compressed, key } = this.#record;
    return [...compressed, ...(tar === undefined ? [] : [tar])].find(
      (entry) => entry.descriptor.digest === key,
    );
  }

  #isDiffID(): boolean {
    return this.key === this.#record.diffID;
  }

  #named(): Descriptor {
    const { tar, compressed } = this.#record;
    const entry = this.#own() ?? compressed[0] ?? tar;
    if (entry === undefined) throw new TypeError('a layer record has an entry');
    return entry.descriptor;
  }
}

/** @param check fails when the compressed bytes are wrong, which is the better reason */
async function* checked(
  tar: AsyncIterable<Uint8Array>,
  descriptor: Descriptor,
  expected: Digest,
  check: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const digester = new Digester(digestAlgorithm(expected));
  let held: Uint8Array | undefined;
  try {
    // One chunk behind, so that a reader who counts bytes cannot take a bad tar for whole.
    for await (const bytes of tar) {
      digester.update(bytes);
      if (held !== undefined) yield held;
      held = bytes;
    }
  } catch (error) {
    if (isLayercacheError(error, 'COMPRESSION_INVALID')) await check();
    throw error;
  }
  const found = digester.digest();
  if (found !== expected) {
    await check();
    throw new IntegrityError(
      'DIFFID_MISMATCH',
      `layer ${descriptor.digest} was said to have the diffID ${expected}, but its tar hashes to ${found}`,
      { expected, found },
    );
  }
  if (held !== undefined) yield held;
}
