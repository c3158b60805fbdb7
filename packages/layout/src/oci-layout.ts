import { join } from 'node:path';
import type { Readable } from 'node:stream';
import {
  LayercacheError,
  claimedDigests,
  isManifestMediaType,
  layerForm,
  refName,
  silentLogger,
  type Descriptor,
  type Digest,
  type Logger,
  descriptorSchema,
} from '@layercache/oci';
import { Blobs, type Bytes, type ReadOptions, type WriteOptions, type WrittenBlob } from './blobs.js';
import { compressedDiffID, withDigests, type Entry } from './entry.js';
import { EntryTable } from './entry-table.js';
import type { LayoutExtension } from './extension.js';
import {
  isSystemError,
  nodeFileSystem,
  storageError,
  syncFolder,
  writeFully,
  type FileSystem,
} from './file-system.js';
import { emptyHead, indexText, parseIndexDocument, type IndexHead } from './index-document.js';
import { Ingest, type IngestOptions, type Ingested, type OpenSource, type Wanted } from './ingest.js';
import { checkLayoutFile, layoutFileText } from './layout-file.js';
import { TempFiles } from './temp-files.js';

export interface OpenOptions {
  /** Make the layout where there is none. Default: true. */
  readonly create?: boolean;
  /** What a resolved put survives: SIGKILL (`process`, the default), or power loss as well (`fsync`). */
  readonly durability?: 'process' | 'fsync';
  readonly logger?: Logger;
  /** How long to wait for the lock, in ms. Default: 30,000. */
  readonly lockTimeout?: number;
  readonly extension?: LayoutExtension;
  /** The disk. Default: the real one. */
  readonly files?: FileSystem;
}

export class OciLayout {
  readonly dir: string;
  readonly #files: FileSystem;
  readonly #logger: Logger;
  readonly #extension: LayoutExtension | undefined;
  readonly #temps: TempFiles;
  readonly #blobs: Blobs;
  readonly #ingest: Ingest;
  #table = new EntryTable();
  #head: IndexHead = emptyHead;
  #dirty = new Set<Digest>();
  #closed = false;

  private constructor(dir: string, options: OpenOptions) {
    this.dir = dir;
    this.#files = options.files ?? nodeFileSystem;
    this.#logger = options.logger ?? silentLogger;
    this.#extension = options.extension;
    this.#temps = new TempFiles(this.#files, dir);
    this.#blobs = new Blobs(this.#files, dir, this.#temps, (digest) => this.#dropCorrupt(digest));
    this.#ingest = new Ingest(this.#files, this.#temps.dir, this.#blobs);
  }

  static async open(dir: string, options: OpenOptions = {}): Promise<OciLayout> {
    const layout = new OciLayout(dir, options);
    try {
      await layout.#load(options.create ?? true);
    } catch (error) {
      throw storageError(error, `open layout ${dir}`);
    }
    return layout;
  }

  async #load(create: boolean): Promise<void> {
    if (!checkLayoutFile(this.#files, this.dir)) {
      if (!create) {
        throw new LayercacheError(
          'NOT_FOUND',
          `there is no layout in ${this.dir}; create it, or choose another folder`,
        );
      }
      await this.#writeFile('oci-layout', [layoutFileText]);
    }
    const path = join(this.dir, 'index.json');
    let bytes: Buffer | undefined;
    try {
      bytes = this.#files.readFileSync(path);
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
      if (create) {
        await this.#writeFile('index.json', indexText(emptyHead, []));
      }
    }
    if (bytes !== undefined) {
      const { head, manifests } = parseIndexDocument(bytes, path);
      this.#head = head;
      for (const descriptor of manifests) this.#table.put(descriptor, false);
      try {
        this.#temps.sweep();
      } catch (error) {
        this.#logger.debug({ message: 'temporary files not removed', error });
      }
      await this.#adopt(manifests.filter((descriptor) => isManifestMediaType(descriptor.mediaType)));
    }
  }

  async #adopt(manifests: readonly Descriptor[]): Promise<void> {
    if (this.#extension === undefined || manifests.length === 0) return;
    const found = await this.#extension.adopt({
      manifests,
      readBlob: (digest) => this.readBytes(digest),
      hasBlob: (digest, size) => this.has(digest, size),
      lookup: (key) => this.lookup(key),
    });
    if (found.length > 0) await this.put(found);
  }

  lookup(key: Digest): readonly Entry[] {
    return this.#table.lookup(key);
  }

  lookupTag(name: string): Entry | undefined {
    return this.#table.tagged(name);
  }

  entries(): Iterable<Entry> {
    return this.#table.all();
  }

  *tags(): Iterable<[name: string, entry: Entry]> {
    for (const entry of this.#table.all()) {
      const name = refName(entry.descriptor);
      if (name !== undefined) yield [name, entry];
    }
  }

  async put(
    descriptor: Descriptor | readonly Descriptor[],
    options: { readonly proven?: boolean } = {},
  ): Promise<void> {
    const list = [descriptor].flat() as readonly Descriptor[];
    for (const one of list) checkDescriptor(one);
    for (const one of list) {
      this.#table.put(one, options.proven ?? false);
      this.#dirty.add(one.digest);
      this.#blobs.pins.release(one.digest);
    }
    await Promise.resolve();
  }

  async untag(name: string): Promise<boolean> {
    const entry = this.#table.tagged(name);
    if (entry === undefined) return false;
    this.#dirty.add(entry.descriptor.digest);
    return Promise.resolve(this.#table.untag(name));
  }

  async remove(digest: Digest): Promise<boolean> {
    const known = this.#table.remove(digest);
    if (known) this.#dirty.add(digest);
    const unlinked = await this.#blobs.unlink(digest);
    return known || unlinked;
  }

  async #dropCorrupt(digest: Digest): Promise<void> {
    this.#logger.warn({ message: 'corrupt blob dropped', digest });
    await this.remove(digest).catch(() => undefined);
  }

  async has(digest: Digest, size?: number): Promise<boolean> {
    const found = await this.#blobs.size(digest);
    return found !== undefined && (size === undefined || found === size);
  }

  blobSize(digest: Digest): Promise<number | undefined> {
    return this.#blobs.size(digest);
  }

  blobPath(digest: Digest): string {
    return this.#blobs.path(digest);
  }

  read(digest: Digest, options: ReadOptions = {}): Readable {
    return this.#blobs.read(digest, options);
  }

  /** A small document, verified. */
  readBytes(
    digest: Digest,
    options: { readonly maxSize?: number; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Uint8Array> {
    return this.#blobs.readBytes(digest, options);
  }

  write(source: Bytes, options: WriteOptions = {}): Promise<WrittenBlob> {
    return this.#blobs.write(source, options);
  }

  ingest(want: Wanted, open: OpenSource, options: IngestOptions = {}): Promise<Ingested> {
    return this.#ingest.fetch(want, open, options);
  }

  async sync(): Promise<void> {
    if (this.#dirty.size === 0) return;
    const changed = new Set(this.#dirty);
    for (const entry of [...this.#table.all()]) {
      const { descriptor } = entry;
      if (layerForm(descriptor.mediaType) !== 'tar') continue;
      const digests = new Set(claimedDigests(descriptor));
      for (const other of this.#table.lookup(descriptor.digest)) {
        if (compressedDiffID(other.descriptor) === descriptor.digest) digests.add(other.descriptor.digest);
      }
      this.#table.put(withDigests(descriptor, [...digests].sort()), entry.proven);
    }
    let unlink: readonly Digest[] = [];
    if (this.#extension !== undefined) {
      const derived = await this.#extension.derive({
        entries: [...this.#table.all()].map((entry) => entry.descriptor),
        changed,
        readBlob: (digest) => this.readBytes(digest),
        writeBlob: async (bytes) => (await this.write(bytes)).digest,
      });
      for (const digest of derived.drop) this.#table.remove(digest);
      for (const descriptor of derived.put) this.#table.put(descriptor, false);
      unlink = derived.unlink;
    }
    await this.#writeFile('index.json', indexText(this.#head, this.#table.all()));
    for (const digest of unlink) await this.#blobs.unlink(digest);
    this.#dirty = new Set();
  }

  async #writeFile(name: string, pieces: Iterable<string>): Promise<void> {
    const temp = await this.#temps.create();
    try {
      await writeFully(this.#files, temp.fd, Buffer.from([...pieces].join('')), 0);
      await this.#files.fsync(temp.fd);
      await this.#files.rename(temp.path, join(this.dir, name));
      await this.#files.close(temp.fd);
    } catch (error) {
      await this.#temps.discard(temp);
      throw error;
    }
    await syncFolder(this.#files, this.dir);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.sync();
    this.#blobs.pins.releaseAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** @throws LayercacheError `DOCUMENT_INVALID` */
function checkDescriptor(descriptor: Descriptor): void {
  const checked = descriptorSchema.safeParse(descriptor);
  if (checked.success) return;
  const issue = checked.error.issues[0];
  const shown = JSON.stringify(descriptor.digest).slice(0, 160);
  throw new LayercacheError(
    'DOCUMENT_INVALID',
    `descriptor ${shown} is not valid: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'unknown'}`,
    { cause: checked.error },
  );
}
