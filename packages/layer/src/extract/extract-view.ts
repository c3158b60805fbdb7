import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { LayercacheError, throwIfAborted, type Digest } from '@layercache/oci';
import type { MergedView, ViewNode } from '../merge/merged-view.js';
import type { Content, Inode } from '../merge/tree.js';
import { encodeBytes } from '../tar/byte-string.js';
import type { Timestamp } from '../tar/entry.js';
import { contentsOf } from './layer-contents.js';

export interface ExtractOptions {
  /** The tar of a layer from its first byte, verified: the stream fails unless it hashes to `diffID`. */
  readonly openTar: (diffID: Digest, signal: AbortSignal | undefined) => AsyncIterable<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
}

export interface Extracted {
  /** Names made. */
  readonly names: number;
  /** Bytes written. */
  readonly bytes: number;
  /** Devices and FIFOs, which Node cannot make. */
  readonly skipped: readonly string[];
  /** Whether owners, and the set-uid and set-gid bits that go with them, were set: only root may. */
  readonly hasOwners: boolean;
  /** Files whose extended attributes were left out: Node cannot set them. */
  readonly withoutXattrs: number;
}

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
/** A new file, never what is there already, and never through a symlink. */
const NEW_FILE = O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY;

/**
 * Writes the files of an image below a folder, which must be new or empty: so everything in it was made here,
 * and no link in it is ever followed. Until all is written, nobody else can enter. On failure it is emptied.
 *
 * @throws LayercacheError `USAGE` when the folder has something in it, `STORAGE`, `ABORTED`; errors of `openTar`
 */
export async function extractView(
  view: MergedView,
  folder: string,
  options: ExtractOptions,
): Promise<Extracted> {
  await prepare(folder);
  try {
    return await new Extraction(view, folder, options).run();
  } catch (error) {
    await empty(folder).catch(() => undefined);
    throw asStorageError(error, folder);
  }
}

async function prepare(folder: string): Promise<void> {
  let names: string[];
  try {
    await fs.mkdir(folder, { recursive: true, mode: 0o700 });
    names = await fs.readdir(folder);
    if (names.length === 0) await fs.chmod(folder, 0o700);
  } catch (error) {
    throw asStorageError(error, folder);
  }
  if (names.length > 0) {
    throw new LayercacheError(
      'USAGE',
      `cannot extract to ${folder}: it has something in it; give a new or empty folder`,
    );
  }
}

async function empty(folder: string): Promise<void> {
  for (const name of await fs.readdir(folder, { encoding: 'buffer' })) {
    await fs.rm(join(folder, name), { recursive: true, force: true });
  }
}

function join(folder: string, below: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), below]);
}

function asStorageError(error: unknown, folder: string): unknown {
  if (!(error instanceof Error) || error instanceof LayercacheError || !('syscall' in error)) return error;
  return new LayercacheError('STORAGE', `cannot extract to ${folder}: ${error.message}`, { cause: error });
}

class Extraction {
  readonly #view: MergedView;
  readonly #folder: string;
  readonly #options: ExtractOptions;
  readonly #isRoot = process.geteuid?.() === 0;
  /** First name of each file. */
  readonly #made = new Map<Inode, Buffer>();
  readonly #skipped: string[] = [];
  readonly #nodes: { readonly node: ViewNode; readonly path: Buffer }[] = [];
  #bytes = 0;
  #withoutXattrs = 0;

  constructor(view: MergedView, folder: string, options: ExtractOptions) {
    this.#view = view;
    this.#folder = folder;
    this.#options = options;
  }

  async run(): Promise<Extracted> {
    for (const node of this.#view.nodes()) await this.#make(node);
    await this.#fill();
    // Attributes last, and a folder's after those of what is in it: writing there would change its times, and
    // its mode may forbid it.
    for (const { node, path } of this.#nodes.reverse()) await this.#setAttributes(node.inode, path);
    return {
      names: this.#nodes.length,
      bytes: this.#bytes,
      skipped: this.#skipped,
      hasOwners: this.#isRoot,
      withoutXattrs: this.#withoutXattrs,
    };
  }

  async #make(node: ViewNode): Promise<void> {
    throwIfAborted(this.#options.signal);
    const { inode } = node;
    const path = node.path === '' ? Buffer.from(this.#folder) : join(this.#folder, encodeBytes(node.path));
    const other = inode.type === 'dir' ? undefined : this.#made.get(inode);
    if (other !== undefined) await fs.link(other, path);
    else if (inode.type === 'dir') {
      if (node.path !== '') await fs.mkdir(path, 0o700);
    } else if (inode.type === 'symlink') await fs.symlink(encodeBytes(inode.target), path);
    else if (inode.type === 'reg') {
      const file = await fs.open(path, NEW_FILE, 0o600);
      try {
        if (inode.size > 0) await file.truncate(inode.size);
      } finally {
        await file.close();
      }
    } else {
      this.#skipped.push(node.path);
      return;
    }
    if (inode.xattrs.size > 0) this.#withoutXattrs++;
    if (other === undefined) this.#made.set(inode, path);
    this.#nodes.push({ node, path });
  }

  /** Reads each layer that has contents once, from its start to its end. */
  async #fill(): Promise<void> {
    const layers = new Map<Digest, { readonly file: Buffer; readonly content: Content }[]>();
    for (const [{ content }, file] of this.#made) {
      if (content === undefined || content.size === 0) continue;
      const files = layers.get(content.diffID) ?? [];
      if (files.length === 0) layers.set(content.diffID, files);
      files.push({ file, content });
    }
    for (const [diffID, files] of layers) {
      const { signal } = this.#options;
      let open: { readonly path: Buffer; readonly handle: fs.FileHandle } | undefined;
      try {
        for await (const { file, position, bytes } of contentsOf(
          this.#options.openTar(diffID, signal),
          files,
        )) {
          throwIfAborted(signal);
          if (open?.path !== file) {
            await open?.handle.close();
            open = undefined;
            open = { path: file, handle: await fs.open(file, O_NOFOLLOW | O_WRONLY) };
          }
          await writeAll(open.handle, bytes, position);
          this.#bytes += bytes.length;
        }
      } finally {
        await open?.handle.close();
      }
    }
  }

  async #setAttributes(inode: Inode, path: Buffer): Promise<void> {
    if (this.#isRoot) await fs.lchown(path, inode.uid, inode.gid);
    const time = timeFor(inode.mtime);
    if (inode.type === 'symlink') {
      await fs.lutimes(path, time, time);
      return;
    }
    // Set-uid for another owner than the image's would be another thing.
    await fs.chmod(path, this.#isRoot ? inode.mode : inode.mode & 0o1777);
    await fs.utimes(path, time, time);
  }
}

/** Seconds before and after 1970 that Node can set at all. File systems have less, and take the nearest they have. */
const MAX_TIME = 8_640_000_000_000;

/**
 * The nearest time to one of a tar, which may have any, that can be set. Node takes a number before 1970 for now; a
 * `Date` it takes as it is, to the millisecond.
 */
function timeFor({ seconds, nanoseconds }: Timestamp): number | Date {
  const whole = Math.min(Math.max(seconds, -MAX_TIME), MAX_TIME);
  const fraction = whole === seconds && whole < MAX_TIME ? nanoseconds : 0;
  return whole < 0 ? new Date(whole * 1000 + fraction / 1e6) : whole + fraction / 1e9;
}

async function writeAll(handle: fs.FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, position + at);
    at += bytesWritten;
  }
}
