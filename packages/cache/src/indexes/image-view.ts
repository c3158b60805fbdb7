import { Readable } from 'node:stream';
import {
  contentDigests,
  extractView,
  readFile,
  type Content,
  type Extracted,
  type IndexedLayer,
  type MergedView,
  type SparseMap,
} from '@layercache/layer';
import { Digester, LayercacheError, type Descriptor, type Digest } from '@layercache/oci';
import type { StoredLayerIndex } from './stored-index.js';

export interface ReadFileOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Files of one layer. Reading a small one alone takes milliseconds, a pass over a layer seconds. */
const WORTH_A_PASS = 100;

/** How a view gets at the bytes of its layers. */
export interface ViewAccess {
  bytes(index: StoredLayerIndex): IndexedLayer;
  /** A stream that has begun, so that what is wrong with its first bytes is known. */
  begun(index: StoredLayerIndex, pieces: AsyncIterable<Uint8Array>): Promise<Readable>;
  openTar(diffID: Digest, signal: AbortSignal | undefined): AsyncIterable<Uint8Array>;
}

/** The files of an image, as its layers make them. Nothing of a layer is read but what is asked for. */
export class ImageView {
  /** The manifest of the image, for one platform. */
  readonly descriptor: Descriptor;
  readonly merged: MergedView;
  /** Indexes of its layers, bottom to top. */
  readonly layers: readonly StoredLayerIndex[];
  readonly #access: ViewAccess;
  readonly #proven: () => Promise<ImageView>;

  /** @param proven the same image, with indexes that this machine made */
  constructor(
    descriptor: Descriptor,
    merged: MergedView,
    layers: readonly StoredLayerIndex[],
    access: ViewAccess,
    proven: () => Promise<ImageView>,
  ) {
    this.descriptor = descriptor;
    this.merged = merged;
    this.layers = layers;
    this.#access = access;
    this.#proven = proven;
  }

  /**
   * Whether a part of this view is only what somebody else says: the index of a layer came from elsewhere, and the layer
   * is not on this disk. Names, modes and contents of its files may be made up.
   */
  get claimed(): boolean {
    return this.layers.some((index) => !index.proven);
  }

  /**
   * The contents of a regular file; symlinks are followed inside the image. Reads the spans of the layer that it is
   * in, each checked: the stream fails when they are not those that were indexed.
   *
   * @throws LayercacheError `NOT_FOUND`; `USAGE` when it is a folder or a device; `DIGEST_MISMATCH`,
   * `COMPRESSION_INVALID` when the layer and its index do not fit
   */
  open(path: string, options: ReadFileOptions = {}): Promise<Readable> {
    const { content } = this.#file(path);
    return this.#read(content, options);
  }

  /** Bytes `start` up to and without `end` of a regular file, as far as it goes. */
  readRange(path: string, start: number, end: number, options: ReadFileOptions = {}): Promise<Readable> {
    if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start > end) {
      throw new LayercacheError(
        'USAGE',
        `bytes ${start} to ${end} are no range: give a start and an end not before it`,
      );
    }
    const { content, size } = this.#file(path);
    return this.#read(content && partOf(content, Math.min(start, size), Math.min(end, size)), options);
  }

  /**
   * Writes the files into a folder, which must be new or empty. Layers are read whole and verified: an index that came
   * from elsewhere has no say in it.
   *
   * @throws LayercacheError `USAGE` when something is in it, `STORAGE`, `DIFFID_MISMATCH`
   */
  async extract(folder: string, options: ReadFileOptions = {}): Promise<Extracted> {
    if (this.claimed) return (await this.#proven()).extract(folder, options);
    return extractView(this.merged, folder, {
      openTar: (diffID, signal) => this.#access.openTar(diffID, signal),
      signal: options.signal,
    });
  }

  /**
   * Digests of files of the image, by their contents: a layer of which many are asked for is read once, and else
   * only what is asked for.
   *
   * @throws LayercacheError as {@link open} and {@link extract}
   */
  async digests(
    contents: readonly Content[],
    { signal }: ReadFileOptions = {},
  ): Promise<Map<Content, Digest>> {
    const layers = new Map<number, Set<Content>>();
    for (const content of contents) {
      const asked = layers.get(content.layer) ?? new Set();
      layers.set(content.layer, asked.add(content));
    }
    const found = new Map<Content, Digest>();
    for (const [layer, asked] of layers) {
      const index = this.layers[layer];
      if (index === undefined) throw new TypeError('a file is in a layer of its image');
      if (asked.size >= WORTH_A_PASS) {
        const tar = this.#access.openTar(index.diffID, signal);
        for (const [content, digest] of await contentDigests(tar, asked, signal)) found.set(content, digest);
      } else {
        for (const content of asked) {
          found.set(content, await digestOfStream(await this.#read(content, { signal })));
        }
      }
    }
    return found;
  }

  #file(path: string): { readonly content: Content | undefined; readonly size: number } {
    const inode = this.merged.find(path)?.inode;
    if (inode === undefined) {
      throw new LayercacheError(
        'NOT_FOUND',
        `there is no ${JSON.stringify(path)} in image ${this.descriptor.digest}`,
      );
    }
    if (inode.type !== 'reg') {
      throw new LayercacheError(
        'USAGE',
        `${JSON.stringify(path)} in image ${this.descriptor.digest} is no file to read: it is of the type ${inode.type}`,
      );
    }
    return inode;
  }

  async #read(content: Content | undefined, { signal }: ReadFileOptions): Promise<Readable> {
    if (content === undefined) return Readable.from([], { objectMode: false });
    const index = this.layers[content.layer];
    if (index === undefined) throw new TypeError('a file is in a layer of its image');
    return this.#access.begun(index, readFile(this.#access.bytes(index), content, { signal }));
  }
}

async function digestOfStream(stream: Readable): Promise<Digest> {
  const digester = new Digester();
  for await (const bytes of stream) digester.update(bytes as Uint8Array);
  return digester.digest();
}

/** The same file from `start` to `end`. */
function partOf(content: Content, start: number, end: number): Content {
  if (content.sparse === undefined) return { ...content, offset: content.offset + start, size: end - start };
  let stored = 0;
  let skipped = 0;
  const segments: SparseMap['segments'][number][] = [];
  for (const { offset, size } of content.sparse.segments) {
    const from = Math.max(offset, start);
    const to = Math.min(offset + size, end);
    if (to > from) {
      if (segments.length === 0) skipped = stored + from - offset;
      segments.push({ offset: from - start, size: to - from });
    }
    stored += size;
  }
  const size = segments.reduce((sum, segment) => sum + segment.size, 0);
  return {
    ...content,
    offset: content.offset + skipped,
    size,
    sparse: { size: end - start, segments },
  };
}
