import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import {
  errorFields,
  LayercacheError,
  descriptorSchema,
  isLayercacheError,
  isManifestMediaType,
  parseDigest,
  refName,
  silentLogger,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import { delay } from './abort.js';
import { openArriving } from './arriving-blob.js';
import {
  Blobs,
  type BlobOwner,
  type Bytes,
  type HashedBlob,
  type ReadDocumentOptions,
  type ReadOptions,
  type WriteOptions,
  type WrittenBlob,
} from './blobs.js';
import { lookupKeys, type Entry } from './entry.js';
import type { LayoutExtension } from './extension.js';
import {
  isSystemError,
  nodeFileSystem,
  onDisk,
  storageError,
  syncFolder,
  writeFully,
  type FileSystem,
} from './file-system.js';
import { Ingest, type IngestOptions, type Ingested, type OpenSource, type Wanted } from './ingest.js';
import type { Change } from './journal-format.js';
import { isDeep } from './index-document.js';
import { checkLayoutFile, layoutFileText } from './layout-file.js';
import { LayoutState, TORN_POLL, isYoung, type EvictedBlob } from './layout-state.js';
import { restoreLayout } from './restore.js';
import { folderSize } from './space/folder-size.js';
import { Ledger } from './space/ledger.js';
import { limitedFiles } from './space/limited-files.js';
import type { LimitOptions } from './space/limits.js';
import { Space } from './space/space.js';
import { StagedBlob } from './staged-blob.js';
import { SideFolder, type SideFolderOptions, type WithRoom } from './side-folder.js';
import { referencedFrom, storedBlobs, type StoredBlob } from './stored-blobs.js';
import { TempFiles, type PartialFile } from './temp-files.js';

/** Open files are scarce: the usual limit of a process is 1,024. */
const MAX_HOLDS = 512;
/** Blobs that are held open and go with one commit. */
const EVICTED_TOGETHER = 128;
const LOCK_TIMEOUT = 30_000;
/** After this many ms a blob that this handle pinned may go for others: its writer has given up, or is told later. */
const ABANDONED = 60_000;

export interface OpenOptions {
  /** Make the layout where there is none. Default: true. */
  readonly create?: boolean;
  /** Make `oci-layout` and `index.json` again where they are missing or broken. Default: false, that is an error. */
  readonly repair?: boolean;
  /** What a resolved put survives: SIGKILL (`process`, the default), or power loss as well (`fsync`). */
  readonly durability?: 'process' | 'fsync';
  readonly logger?: Logger;
  /** How long to wait for the lock, in ms. Default: 30,000. */
  readonly lockTimeout?: number;
  readonly extension?: LayoutExtension;
  /** What the layout may take. Default: everything. */
  readonly limits?: LimitOptions | undefined;
  /** Is told the size of each blob that this handle wrote to the disk. */
  readonly onStored?: ((size: number) => void) | undefined;
  /** The disk. Default: the real one. */
  readonly files?: FileSystem;
}

/** An OCI image layout on disk. Any number of handles, in any number of processes, can have it open. */
export class OciLayout {
  readonly dir: string;
  /** What was made again when it was opened, a sentence each. */
  readonly restored: readonly string[];
  readonly #files: FileSystem;
  readonly #temps: TempFiles;
  readonly #blobs: Blobs;
  readonly #ingest: Ingest;
  readonly #state: LayoutState;
  readonly #space: Space | undefined;
  readonly #pending = new Set<Promise<void>>();
  #holds = 0;
  #closing: Promise<void> | undefined;

  private constructor(
    dir: string,
    files: FileSystem,
    temps: TempFiles,
    space: Space | undefined,
    options: OpenOptions,
    restored: readonly string[],
  ) {
    this.restored = restored;
    this.#space = space;
    this.dir = dir;
    this.#files = files;
    this.#temps = temps;
    const logger = options.logger ?? silentLogger;
    const owner: BlobOwner = {
      onCorrupt: (digest, ino) =>
        this.#later(async () => {
          const dropped = await this.#state.dropCorrupt(digest, ino);
          logger.warn({ message: dropped ? 'corrupt blob dropped' : 'corrupt blob was replaced', digest });
        }).catch((error: unknown) => {
          logger.warn({ message: 'corrupt blob not dropped', digest, ...errorFields(error) });
        }),
      onSize: (digest, size) =>
        this.#later(() => this.#correctSize(digest, size)).catch((error: unknown) => {
          logger.warn({ message: 'size of an entry not corrected', digest, size, ...errorFields(error) });
        }),
      expectedSize: (digest) => this.#state.of(digest)[0]?.descriptor.size,
      onStored: options.onStored ?? (() => undefined),
    };
    this.#blobs = new Blobs(files, dir, temps, owner, space !== undefined);
    this.#ingest = new Ingest(files, temps.dir, this.#blobs, space);
    this.#state = new LayoutState({
      files,
      dir,
      temps,
      logger,
      blobPath: (digest) => this.#blobs.path(digest),
      fsync: options.durability === 'fsync',
      lockTimeout: options.lockTimeout ?? LOCK_TIMEOUT,
      extension: options.extension,
      // Under the lock: what has to be done about a corrupt one waits for that.
      readBlob: (digest) => this.#blobs.readBytes(digest, {}, false),
      // Its room was made with that of the commit it is written in.
      writeBlob: async (bytes) => {
        const { digest } = await this.#blobs.write(bytes);
        // Written under the exclusive lock, so that nobody can remove it before the commit is done.
        this.#blobs.pins.release(digest);
        return digest;
      },
      hasBlob: (digest, size) => this.has(digest, size),
      unlinkBlob: (digest) => this.#blobs.unlink(digest),
      claimBlob: (digest, corrupt) => {
        this.#blobs.pins.releaseIdle(digest, ABANDONED);
        return this.#blobs.claim(digest, corrupt);
      },
      sizeOfBlob: (digest) => this.#blobs.facts(digest)?.size,
      space,
    });
  }

  /**
   * @throws LayercacheError `NOT_FOUND` when there is no layout and none is to be made; `LAYOUT_INVALID` for a
   *   folder of something else, another version, or a broken `index.json`, which is left as it is; `STORAGE`
   */
  static async open(dir: string, options: OpenOptions = {}): Promise<OciLayout> {
    const disk = options.files ?? nodeFileSystem;
    let space: Space | undefined;
    const { lockTimeout = LOCK_TIMEOUT } = options;
    try {
      await untilWritten(disk, join(dir, 'index.json'));
      const restored =
        options.repair === true
          ? await restoreLayout(disk, dir, { lockTimeout, extension: options.extension })
          : [];
      const isThere = checkLayoutFile(disk, dir);
      space = await openSpace(disk, dir, isThere, options);
      const files = space === undefined ? disk : limitedFiles(disk, space);
      const temps = new TempFiles(files, dir);
      if (!isThere) {
        if (options.create === false) {
          throw new LayercacheError(
            'NOT_FOUND',
            `there is no layout in ${dir}; create it, or choose another folder`,
          );
        }
        const create = (): Promise<void> => createLayoutFile(files, temps, dir);
        await (space?.withSideRoom(layoutFileText.length, undefined, create) ?? create());
      }
      const layout = await onceWritten(
        disk,
        join(dir, 'index.json'),
        () => new OciLayout(dir, files, temps, space, options, restored),
      );
      try {
        await layout.#state.start();
      } catch (error) {
        layout.#state.abandon();
        throw error;
      }
      sweep(temps, options.logger ?? silentLogger);
      await space?.trim();
      return layout;
    } catch (error) {
      await space?.close();
      throw storageError(error, `open layout ${dir}`);
    }
  }

  /**
   * Entries with this digest; entries whose diffID it is; tars that list it as their compressed counterpart. Sees
   * every `put` that was resolved, in any process. Costs a microsecond or two, however many entries there are.
   */
  lookup(key: Digest): readonly Entry[] {
    return onDisk('read the index', () => this.#state.lookup(key));
  }

  /** The entry with this `org.opencontainers.image.ref.name`. */
  lookupTag(name: string): Entry | undefined {
    return onDisk('read the index', () => this.#state.tagged(name));
  }

  /** All entries, in the order of `index.json`, as they are when the iteration starts. */
  *entries(): Generator<Entry> {
    try {
      yield* this.#state.all();
    } catch (error) {
      throw storageError(error, 'read the index');
    }
  }

  /** Every digest and diffID that {@link OciLayout.lookup} finds something under, once. */
  *keys(): Generator<Digest> {
    const seen = new Set<Digest>();
    for (const { descriptor } of this.entries()) {
      for (const key of lookupKeys(descriptor)) {
        if (seen.has(key)) continue;
        seen.add(key);
        yield key;
      }
    }
  }

  *tags(): Generator<[name: string, entry: Entry]> {
    for (const entry of this.entries()) {
      const name = refName(entry.descriptor);
      if (name !== undefined) yield [name, entry];
    }
  }

  /**
   * Adds entries, all or none. One that has the digest and the name of another is united with it, and its
   * annotations win. A name that another digest had moves.
   *
   * @param options.proven this machine decompressed and hashed the pair. Stays so while digest and diffID do; a
   *   claim of another diffID does not replace it.
   * @throws LayercacheError `DOCUMENT_INVALID`, `LOCK_TIMEOUT`, `STORAGE`
   */
  async put(
    descriptor: Descriptor | readonly Descriptor[],
    options: { readonly proven?: boolean } = {},
  ): Promise<void> {
    const given = [descriptor].flat() as readonly Descriptor[];
    for (const one of given) checkDescriptor(one);
    const list = given.map((one) => this.#withKnownSize(one));
    const proven = options.proven ?? false;
    if (list.length === 0) return;
    await this.#change(
      'put an entry',
      list.map((one) => ({ type: 'put', entry: { descriptor: one, proven } })),
    );
    for (const { digest } of list) this.#blobs.pins.release(digest);
  }

  /** Whoever has the bytes knows their size, whatever others say of it. Where nobody does, what was said first stays. */
  #withKnownSize(descriptor: Descriptor): Descriptor {
    const { digest, size } = descriptor;
    const before = this.#state.of(digest)[0]?.descriptor.size;
    if (before === undefined || before === size) return descriptor;
    return { ...descriptor, size: this.#blobs.facts(digest)?.size ?? before };
  }

  async #correctSize(digest: Digest, size: number): Promise<void> {
    const wrong = this.#state.of(digest).filter(({ descriptor }) => descriptor.size !== size);
    if (wrong.length === 0) return;
    await this.#change(
      'correct the size of an entry',
      wrong.map(({ descriptor, proven }) => ({
        type: 'put',
        entry: { descriptor: { ...descriptor, size }, proven },
      })),
    );
  }

  /** Does something that nobody may wait for, before the handle is closed; a handle that is being closed does not begin. */
  #later(run: () => Promise<void>): Promise<void> {
    if (this.#closing !== undefined) return Promise.resolve();
    const running = run();
    const settled = running.then(
      () => undefined,
      () => undefined,
    );
    this.#pending.add(settled);
    void settled.finally(() => this.#pending.delete(settled));
    return running;
  }

  /** The entry loses its name and stays. False when nothing has that name. */
  async untag(name: string): Promise<boolean> {
    if (this.lookupTag(name) === undefined) return false;
    await this.#change('remove a name', [{ type: 'untag', name }]);
    return true;
  }

  /**
   * Removes all entries of a digest, and its blob unless a writer in any process is about to put an entry for it.
   * `index.json` is written before a blob goes, so remove many digests with one call.
   *
   * @returns whether there was anything
   */
  async remove(digest: Digest | readonly Digest[]): Promise<boolean> {
    const digests = [digest].flat().map((one) => parseDigest(one));
    try {
      return (await this.#state.remove(digests)).length > 0;
    } catch (error) {
      throw storageError(error, `remove ${digests.join(', ')}`);
    }
  }

  /**
   * Reads a blob to its end and hashes it, without dropping it when it is corrupt: that is for `use` to decide, with
   * {@link dropCorrupt}. The file is open until `use` is done.
   *
   * @throws LayercacheError `NOT_FOUND`, `STORAGE`, `ABORTED`: nothing is known about its bytes then
   */
  hash<T>(
    digest: Digest,
    options: { readonly signal?: AbortSignal | undefined },
    use: (hashed: HashedBlob) => Promise<T>,
  ): Promise<T> {
    return this.#blobs.hash(parseDigest(digest), options.signal, use);
  }

  /**
   * Removes a corrupt blob, with its entries where nobody else has it, unless another file has taken its place or a writer pins it.
   *
   * @returns whether it went
   */
  async dropCorrupt({ digest, ino }: Pick<HashedBlob, 'digest' | 'ino'>): Promise<boolean> {
    try {
      return await this.#state.dropCorrupt(digest, ino);
    } catch (error) {
      throw storageError(error, `remove ${digest}`);
    }
  }

  /**
   * Removes entries and blobs, and names of images that stay, to make room: what a writer in any process holds or is
   * about to put stays whole, so does what was used since it was chosen, and readers who have a blob open keep it.
   * `index.json` is written before a blob goes.
   *
   * @param blobs with the last use that was seen when they were chosen
   * @returns the digests that went
   */
  async evict(blobs: readonly EvictedBlob[], names: readonly string[] = []): Promise<Digest[]> {
    const gone: Digest[] = [];
    try {
      // Those that are not here are not held open.
      const absent = blobs.filter(({ usedAt }) => usedAt === undefined);
      const here = blobs.filter(({ usedAt }) => usedAt !== undefined);
      for (let at = 0; at === 0 || at < here.length; at += EVICTED_TOGETHER) {
        const some = here.slice(at, at + EVICTED_TOGETHER);
        const [together, untagged] = at === 0 ? [absent.concat(some), names] : [some, []];
        for (const digest of await this.#state.evict(together, untagged)) gone.push(digest);
      }
      await this.#space?.trim();
      return gone;
    } catch (error) {
      throw storageError(error, `evict from ${this.dir}`);
    }
  }

  /**
   * Keeps a blob from being evicted, by anyone, until it is let go: for who puts several blobs that belong together.
   * Undefined when it is not here with that size. Beyond 512 at a time, blobs are not held any more.
   */
  async hold(digest: Digest, size?: number): Promise<Disposable | undefined> {
    if (this.#holds >= MAX_HOLDS) {
      return (await this.has(digest, size)) ? { [Symbol.dispose]: () => undefined } : undefined;
    }
    const fd = await this.#blobs.lock(parseDigest(digest), size);
    if (fd === undefined) return undefined;
    this.#holds++;
    return {
      [Symbol.dispose]: () => {
        this.#holds--;
        this.#blobs.letGo(fd);
      },
    };
  }

  /** Whether a writer in any process is about to put an entry for a blob. True when that cannot be found out. */
  isPinned(digest: Digest): Promise<boolean> {
    return this.#blobs.isPinned(parseDigest(digest));
  }

  /** Bytes of all files below the folder. */
  size(): number {
    return onDisk(`measure ${this.dir}`, () => folderSize(this.#files, this.dir));
  }

  /** Bytes that all files have, and that writers have taken room for; undefined without limits. */
  async spaceTaken(): Promise<number | undefined> {
    try {
      return await this.#space?.total();
    } catch (error) {
      throw storageError(error, `measure ${this.dir}`);
    }
  }

  /** A blob of another size is not the blob. */
  async has(digest: Digest, size?: number): Promise<boolean> {
    const found = await this.#blobs.size(digest);
    return found !== undefined && (size === undefined || found === size);
  }

  /** Bytes; undefined when the blob is not here. */
  blobSize(digest: Digest): Promise<number | undefined> {
    return this.#blobs.size(digest);
  }

  /** Where the blob is, or would be. */
  blobPath(digest: Digest): string {
    return this.#blobs.path(digest);
  }

  /**
   * The bytes of a blob. A whole read is hashed, and fails with `DIGEST_MISMATCH` before its end when the bytes are
   * not the digest's; entry and blob are dropped then. `NOT_FOUND` when it is not here.
   */
  read(digest: Digest, options: ReadOptions = {}): Readable {
    return this.#blobs.read(digest, options);
  }

  /**
   * As {@link read}, with the file open when it resolves: from then on a removal, by whomever, does not disturb it.
   *
   * @throws LayercacheError `NOT_FOUND`
   */
  openToRead(digest: Digest, options: ReadOptions = {}): Promise<Readable> {
    return this.#blobs.openToRead(digest, options);
  }

  /** Bytes of a blob, and when it was last used; undefined when it is not here. Does not wait for anything. */
  blobFacts(digest: Digest): Pick<StoredBlob, 'size' | 'usedAt'> | undefined {
    return onDisk(`look at blob ${digest}`, () => this.#blobs.facts(digest));
  }

  /**
   * A small document, verified.
   *
   * @throws LayercacheError `NOT_FOUND`, `DIGEST_MISMATCH`; `DOCUMENT_INVALID` when it is larger
   */
  readBytes(digest: Digest, options: ReadDocumentOptions = {}): Promise<Uint8Array> {
    return this.#blobs.readBytes(digest, options);
  }

  /**
   * Stores bytes as a blob, without an entry. What is here is not written again, nor its source read.
   *
   * @throws LayercacheError `DIGEST_MISMATCH`, `ABORTED`, `STORAGE`
   */
  async write(source: Bytes, options: WriteOptions = {}): Promise<WrittenBlob> {
    const space = this.#space;
    const takeRoom =
      space === undefined ? undefined : (size: number | undefined) => space.reserve(size, options);
    const written = await this.#blobs.write(source, options, takeRoom);
    await this.#correctSize(written.digest, written.size);
    return written;
  }

  /**
   * Takes bytes whose digest is not known yet, piece by piece. They are a file of the layout, and count towards its
   * limits.
   *
   * @throws LayercacheError `STORAGE`
   */
  stage(): Promise<StagedBlob> {
    return StagedBlob.create({
      files: this.#files,
      temps: this.#temps,
      blobs: this.#blobs,
      space: this.#space,
    });
  }

  /**
   * Gives up the staged blob that has been idle for longest, or else the temporary files of dead writers. The writer
   * of a staged blob that was given up gets `NOT_FOUND`.
   *
   * @param idle ms that it must have been idle for
   * @returns whether that freed anything
   */
  async dropStaged(idle: number): Promise<boolean> {
    const dropped = this.#temps.sweep() > 0 || this.#temps.removeIdleUpload(idle);
    if (dropped) await this.#space?.trim();
    return dropped;
  }

  /**
   * Fetches a blob from a source that can start anywhere. An interrupted fetch goes on where it stopped; those who
   * want the same digest at the same time share one.
   *
   * @throws LayercacheError `DIGEST_MISMATCH`, `ABORTED`, `STORAGE`; what `open` or its body throws
   */
  async ingest(want: Wanted, open: OpenSource, options: IngestOptions = {}): Promise<Ingested> {
    const digest = parseDigest(want.digest);
    const ingested = await this.#ingest.fetch({ ...want, digest }, open, options);
    await this.#correctSize(digest, ingested.size);
    // A blob that came for an entry which is there waits for no put: others may remove both.
    if (ingested.fetched > 0 && this.#state.of(digest).length > 0) this.#blobs.pins.release(digest);
    return ingested;
  }

  /**
   * A blob as a stream while `fetch` brings it here, as {@link OciLayout.ingest} does; called off when the stream is
   * destroyed. Resolves when the first bytes come. The stream fails before its end when they are not the blob's.
   *
   * @throws LayercacheError what `fetch` throws
   */
  readArriving(
    want: { readonly digest: Digest; readonly size: number },
    fetch: (options: IngestOptions) => Promise<unknown>,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Readable> {
    const digest = parseDigest(want.digest);
    const paths = [this.#ingest.partialPath(digest), this.#blobs.path(digest)];
    return openArriving({ files: this.#files, paths }, { digest, size: want.size }, fetch, options.signal);
  }

  /** Commits: writes `index.json`, so that other tools see everything. */
  async sync(): Promise<void> {
    try {
      await this.#state.commit();
    } catch (error) {
      throw storageError(error, `write the index of ${this.dir}`);
    }
  }

  /** Commits what this handle put, and lets go of everything. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      try {
        await Promise.all(this.#pending);
        await this.#state.close();
      } finally {
        this.#blobs.pins.releaseAll();
        await this.#space?.close();
      }
    } catch (error) {
      throw storageError(error, `write the index of ${this.dir}`);
    }
  }

  /** Every blob that is here, with an entry or without. */
  storedBlobs(): AsyncGenerator<StoredBlob> {
    return storedBlobs(this.#files, this.dir);
  }

  /**
   * Blobs that no entry, and no manifest that has one, names, and that are not younger than `grace`.
   *
   * @param options.grace ms, default one hour
   */
  async orphans(options: { readonly grace?: number } = {}): Promise<StoredBlob[]> {
    const { grace = 3_600_000 } = options;
    const referenced = await referencedFrom(
      this,
      Array.from(this.entries(), (entry) => entry.descriptor),
    );
    const retired = new Set(this.retiredBlobs());
    const orphans: StoredBlob[] = [];
    for await (const blob of this.storedBlobs()) {
      if (retired.has(blob.digest)) continue;
      if (Date.now() - blob.usedAt.getTime() < grace || referenced.has(blob.digest)) continue;
      if (this.#state.of(blob.digest).length === 0) orphans.push(blob);
    }
    return orphans;
  }

  /**
   * Removes what {@link orphans} finds, but what a writer is about to put an entry for.
   *
   * @param options.grace ms, default one hour
   * @returns what went
   */
  async removeOrphans(options: { readonly grace?: number } = {}): Promise<StoredBlob[]> {
    const orphans = new Map((await this.orphans(options)).map((blob) => [blob.digest, blob] as const));
    try {
      const removed = await this.#state.unlinkUnknown([...orphans.keys()]);
      await this.#space?.trim();
      return removed.flatMap((digest) => orphans.get(digest) ?? []);
    } catch (error) {
      throw storageError(error, `remove orphans of ${this.dir}`);
    }
  }

  /**
   * Removes blobs that still have no entry, and were not used since they were chosen, unless another process is about to
   * put one.
   *
   * @param blobs with the last use that was seen when they were chosen
   * @returns the digests that went
   */
  async removeUnlisted(blobs: readonly EvictedBlob[]): Promise<Digest[]> {
    const seen = new Map(blobs.map(({ digest, usedAt }) => [digest, usedAt?.getTime() ?? 0] as const));
    const isIdle = (digest: Digest): boolean =>
      (this.#blobs.facts(digest)?.usedAt.getTime() ?? Infinity) <= (seen.get(digest) ?? 0);
    try {
      const removed = await this.#state.unlinkUnknown([...seen.keys()], isIdle);
      await this.#space?.trim();
      return removed;
    } catch (error) {
      throw storageError(error, `remove blobs without an entry from ${this.dir}`);
    }
  }

  /** Derived blobs that commits have superseded. They stay for some minutes, for tools that are reading them. */
  retiredBlobs(): readonly Digest[] {
    return this.#state.retired;
  }

  /**
   * Removes derived blobs that commits have superseded.
   *
   * @param age ms since they were. Default: all of them, because space is needed
   * @returns whether that freed anything
   */
  async dropRetired(age = 0): Promise<boolean> {
    try {
      const dropped = await this.#state.dropRetired(age);
      if (dropped) await this.#space?.trim();
      return dropped;
    } catch (error) {
      throw storageError(error, `remove superseded blobs from ${this.dir}`);
    }
  }

  /**
   * Ends what a write began: no entry for the blob is to come from this handle, because there is one already. Without
   * it, the blob could not be evicted for a while.
   */
  unpin(digest: Digest): void {
    this.#blobs.pins.release(parseDigest(digest));
  }

  /**
   * Takes up blobs that have no entry: puts these, and what the owner of the layout reads in those that are manifests,
   * as when another tool brings them. A document that was once derived is read, and is no entry.
   */
  async adopt(descriptors: readonly Descriptor[]): Promise<void> {
    const manifests = descriptors.filter(({ mediaType }) => isManifestMediaType(mediaType));
    const derived = new Set<Digest>();
    for (const { digest } of manifests) {
      if (this.#state.isDerived(await this.readBytes(digest, { touch: false }), digest)) derived.add(digest);
    }
    await this.put(descriptors.filter(({ digest }) => !derived.has(digest)));
    try {
      await this.#state.adopt(manifests);
    } catch (error) {
      throw storageError(error, `adopt blobs in ${this.dir}`);
    }
  }

  /** Makes `index.json` and the side state again, from `index.json` and what of the journal can be read. */
  async rebuild(options: { readonly edited?: boolean } = {}): Promise<void> {
    try {
      await this.#state.rebuild(options.edited);
    } catch (error) {
      throw storageError(error, `rebuild the side state of ${this.dir}`);
    }
  }

  /** What is being written, and what dead writers left: temporary files and partial downloads. */
  temporaryFiles(): string[] {
    return onDisk('list temporary files', () => this.#temps.names());
  }

  /** Small files beside the layout, written within its limits. */
  sideFolder(name: string, options: Pick<SideFolderOptions, 'maxSize' | 'lockTimeout'> = {}): SideFolder {
    return new SideFolder(this.dir, name, { ...options, files: this.#files, withRoom: this.#withRoom });
  }

  /**
   * Replaces a file of the side state, within the limits.
   *
   * @param path below `.layercache/`
   * @throws LayercacheError `CACHE_FULL`, `STORAGE`
   */
  async replaceSideFile(path: string, bytes: Uint8Array): Promise<void> {
    const target = this.#sidePath(path);
    try {
      await this.#withRoom(bytes.byteLength, async () => {
        await this.#files.mkdir(dirname(target));
        const temp = await this.#temps.create();
        try {
          await writeFully(this.#files, temp.fd, bytes, 0);
          await this.#files.rename(temp.path, target);
        } finally {
          await this.#temps.discard(temp);
        }
      });
    } catch (error) {
      throw storageError(error, `write ${target}`);
    }
  }

  /** @throws LayercacheError `STORAGE` */
  async removeSideFile(path: string): Promise<void> {
    try {
      await this.#files.unlink(this.#sidePath(path));
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw storageError(error, `remove ${path}`);
    }
  }

  #sidePath(path: string): string {
    const target = join(this.dir, '.layercache', path);
    if (path.split('/').every((name) => /^[a-z0-9-]+$/.test(name))) return target;
    throw new TypeError(`${JSON.stringify(path)} is no path of the side state`);
  }

  readonly #withRoom: WithRoom = (bytes, write) =>
    this.#space === undefined ? write() : this.#space.withSideRoom(bytes, undefined, write);

  /** Interrupted downloads that nobody goes on with. */
  partialFiles(): PartialFile[] {
    return onDisk('list partial downloads', () => this.#temps.partials());
  }

  /** False when someone goes on with it by now, or it is gone. */
  async removePartial({ name }: Pick<PartialFile, 'name'>): Promise<boolean> {
    try {
      const removed = this.#temps.removePartial(name);
      await this.#space?.trim();
      return removed;
    } catch (error) {
      throw storageError(error, 'remove a partial download');
    }
  }

  /** Removes the temporary files of dead writers. Partial downloads stay. Returns how many went. */
  sweep(): number {
    return onDisk('remove temporary files', () => this.#temps.sweep());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #change(doing: string, changes: readonly Change[]): Promise<void> {
    try {
      await this.#state.append(changes);
    } catch (error) {
      throw storageError(error, `${doing} in ${this.dir}`);
    }
  }
}

/** Another tool that writes `index.json` in place leaves it empty or torn for a moment. */
async function untilWritten(files: FileSystem, path: string): Promise<void> {
  while (isYoung(files, path) && !endsLikeJson(files, path)) await delay(TORN_POLL, undefined);
}

/** Does what reads `index.json`; again, while another tool writes that in place. */
async function onceWritten<T>(files: FileSystem, path: string, read: () => T): Promise<T> {
  for (;;) {
    try {
      return read();
    } catch (error) {
      if (!isLayercacheError(error, 'LAYOUT_INVALID') || !isYoung(files, path)) throw error;
      await delay(TORN_POLL, undefined);
    }
  }
}

/** Whether an object ends at the end of a file, before white space. */
function endsLikeJson(files: FileSystem, path: string): boolean {
  let fd: number | undefined;
  try {
    fd = files.openSync(path, 'r');
    const size = Number(files.fstatSync(fd).size);
    const tail = Buffer.alloc(64);
    const count = files.readSync(fd, tail, 0, tail.length, Math.max(0, size - tail.length));
    return tail.toString('latin1', 0, count).trimEnd().endsWith('}');
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return false;
    throw error;
  } finally {
    if (fd !== undefined) files.closeSync(fd);
  }
}

/** Without limits nothing is counted; where nothing can be written, nothing has to be. */
async function openSpace(
  files: FileSystem,
  dir: string,
  isThere: boolean,
  options: OpenOptions,
): Promise<Space | undefined> {
  const { create = true, lockTimeout = LOCK_TIMEOUT } = options;
  // Who has no limit is counted by those who have one.
  const limits = options.limits ?? (isThere && Ledger.isKept(files, dir) ? {} : undefined);
  if (limits === undefined || (!isThere && !create)) return undefined;
  try {
    return await Space.open(files, dir, limits, lockTimeout);
  } catch (error) {
    if (isThere && isSystemError(error, 'EROFS', 'EACCES', 'EPERM', 'ENOLCK')) return undefined;
    throw error;
  }
}

async function createLayoutFile(files: FileSystem, temps: TempFiles, dir: string): Promise<void> {
  const temp = await temps.create({ target: dir });
  try {
    await writeFully(files, temp.fd, Buffer.from(layoutFileText), 0);
    await files.fsync(temp.fd);
    await files.rename(temp.path, join(dir, 'oci-layout'));
    await syncFolder(files, dir);
  } finally {
    await temps.discard(temp);
  }
}

/** What dead writers left costs space and nothing else, so a layout that cannot be written opens all the same. */
function sweep(temps: TempFiles, logger: Logger): void {
  try {
    temps.sweep();
  } catch (error) {
    logger.debug({ message: 'temporary files not removed', ...errorFields(error) });
  }
}

/** @throws LayercacheError `DOCUMENT_INVALID` */
function checkDescriptor(descriptor: Descriptor): void {
  const checked = descriptorSchema.safeParse(descriptor);
  const shown = (): string => JSON.stringify(descriptor.digest).slice(0, 160);
  if (checked.success) {
    if (!isDeep(descriptor)) return;
    throw new LayercacheError(
      'DOCUMENT_INVALID',
      `descriptor ${shown()} is not valid: objects and lists lie in each other too deep`,
    );
  }
  const issue = checked.error.issues[0];
  throw new LayercacheError(
    'DOCUMENT_INVALID',
    `descriptor ${shown()} is not valid: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'unknown'}`,
    { cause: checked.error },
  );
}
