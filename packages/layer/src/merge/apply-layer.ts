import type { Digest } from '@layercache/oci';
import { compareBytes } from '../tar/byte-string.js';
import { xattrs, type TarEntry } from '../tar/entry.js';
import { cleanPath } from './clean-path.js';
import type { NoteKind, NoteList } from './note.js';
import { MAX_SYMLINKS, type Inode, type Tree, type TreeNode } from './tree.js';

const WHITEOUT = '.wh.';
/** Not whiteouts but AUFS's own files, but for the one that the specification took over. */
const AUFS = '.wh..wh.';
const OPAQUE = '.wh..wh..opq';
/** Where AUFS keeps files that have several names. */
const AUFS_LINKS = '.wh..wh.plnk';

/** A layer as the merged view needs it. */
export interface LayerFiles {
  readonly diffID: Digest;
  readonly entries: readonly TarEntry[];
}

interface Placed {
  readonly entry: TarEntry;
  readonly parts: readonly string[];
  /** The parts as one text. */
  readonly path: string;
  /** Position in the tar. */
  readonly at: number;
}

/** What the entries of one layer ask for, sorted out before any of it is done. */
interface Plan {
  readonly whiteouts: Placed[];
  /** By path, the last of its name. */
  readonly entries: Map<string, Placed>;
  /** Inodes of AUFS's link folder, by name. */
  readonly aufsLinks: Map<string, Inode>;
}

/**
 * Lays one layer over the tree of those below, by the OCI layer specification ("Applying Changesets"), in an
 * order of its own and not that of the tar: whiteouts first, since they hide lower layers only; then
 * everything else, folders before what is in them; then hardlinks, whose targets are all there by now.
 */
export class LayerApplication {
  readonly #tree: Tree;
  readonly #number: number;
  readonly #layer: LayerFiles;
  readonly #notes: NoteList;
  /** Hardlinks that have been seen to: what they are names of, if anything. */
  readonly #linked = new Map<Placed, Inode | undefined>();

  constructor(tree: Tree, number: number, layer: LayerFiles, notes: NoteList) {
    this.#tree = tree;
    this.#number = number;
    this.#layer = layer;
    this.#notes = notes;
  }

  /** Does the work entry by entry, so that the caller can do something else in between, or stop. */
  *run(): Generator<void> {
    const plan: Plan = { whiteouts: [], entries: new Map(), aufsLinks: new Map() };
    for (const [at, entry] of this.#layer.entries.entries()) {
      this.#sortIn(entry, at, plan);
      yield;
    }
    for (const whiteout of plan.whiteouts) {
      this.#hide(whiteout, plan);
      yield;
    }
    const placed = [...plan.entries.values()].sort(byDepth);
    for (const each of placed) {
      if (each.entry.type === 'hardlink') continue;
      this.#place(each);
      yield;
    }
    for (const each of placed) if (each.entry.type === 'hardlink') yield* this.#link(each, plan);
    // A whiteout stands in a folder, which unpacking it would make.
    for (const { parts, entry } of plan.whiteouts) {
      this.#parent(parts, entry);
      yield;
    }
  }

  #note(kind: NoteKind, name: string | (() => string)): void {
    this.#notes.add(kind, this.#number, name);
  }

  #sortIn(entry: TarEntry, at: number, plan: Plan): void {
    const cleaned = cleanPath(entry.name);
    if (cleaned === undefined) {
      this.#note('name refused', entry.name);
      return;
    }
    if (cleaned.isUnusual) this.#note('name cleaned', entry.name);
    const { parts } = cleaned;
    const base = parts.at(-1) ?? '';
    const folders = parts.slice(0, -1);
    const path = parts.join('/');
    if (parts.some((part) => part.startsWith(AUFS)) && base !== OPAQUE) {
      this.#note('AUFS leftover', entry.name);
      if (folders.at(-1) === AUFS_LINKS) plan.aufsLinks.set(base, this.#inodeOf(entry));
    } else if (folders.some((part) => part.startsWith(WHITEOUT))) this.#note('whiteout refused', entry.name);
    else if (base.startsWith(WHITEOUT)) plan.whiteouts.push({ entry, parts, path, at });
    else {
      if (plan.entries.has(path)) this.#note('duplicate', entry.name);
      plan.entries.set(path, { entry, parts, path, at });
    }
  }

  #hide({ entry, parts }: Placed, plan: Plan): void {
    const base = parts.at(-1) ?? '';
    const hidden = base.slice(WHITEOUT.length);
    if (base !== OPAQUE && (hidden === '' || hidden === '.' || hidden === '..')) {
      this.#note('whiteout refused', entry.name);
      return;
    }
    if (this.#leavesSymlink(parts, plan)) return;
    const folder = this.#tree.lookUp(parts.slice(0, -1));
    if (folder === 'refused') this.#note('symlink refused', entry.name);
    if (folder === undefined || folder === 'refused') return;
    if (base === OPAQUE) this.#tree.removeAll(folder.node);
    else {
      this.#tree.remove(folder.node, hidden);
      if (plan.entries.has([...parts.slice(0, -1), hidden].join('/')))
        this.#note('whiteout and entry', entry.name);
    }
  }

  /**
   * Whether a path leads through a symlink of a lower layer in whose place this layer puts a folder. There is
   * nothing to hide then: that folder is new, and what the symlink led to is another.
   */
  #leavesSymlink(parts: readonly string[], plan: Plan): boolean {
    let here = this.#tree.root;
    let symlinks = 0;
    for (let length = 1; length < parts.length; length++) {
      const name = parts[length - 1] ?? '';
      const child = here.children.get(name);
      if (child?.isFolder === true) {
        here = child;
        continue;
      }
      if (child?.inode.type === 'symlink') {
        symlinks++;
        if (symlinks > MAX_SYMLINKS) return false;
        if (plan.entries.get(parts.slice(0, length).join('/'))?.entry.type === 'dir') return true;
      }
      const next = this.#tree.lookUp([name], here);
      if (next === undefined || next === 'refused') return false;
      here = next.node;
    }
    return false;
  }

  /** The folder that an entry goes into; undefined when the entry is refused. */
  #parent(parts: readonly string[], entry: TarEntry): TreeNode | undefined {
    const folder = this.#tree.makeFolder(parts.slice(0, -1), (made, isReplaced) => {
      this.#note(isReplaced ? 'parent replaced' : 'parent implied', () => made.path);
    });
    if (folder === 'refused') {
      this.#note('symlink refused', entry.name);
      return undefined;
    }
    if (folder.throughSymlink) this.#note('through symlink', entry.name);
    return folder.node;
  }

  #place({ entry, parts }: Placed): void {
    const name = parts.at(-1);
    const inode = this.#inodeOf(entry);
    if (name === undefined) {
      // The root is a folder whatever an entry says.
      if (inode.type !== 'dir') this.#note('name refused', entry.name);
      else this.#tree.root.inode = inode;
      return;
    }
    const folder = this.#parent(parts, entry);
    if (folder === undefined) return;
    const there = folder.children.get(name);
    if (there?.isFolder === true && inode.type === 'dir') {
      there.inode = inode;
      there.layer = this.#number;
    } else this.#tree.put(folder, name, inode, this.#number);
  }

  /** Makes a hardlink, and first those of its layer that it leads to one after the other. Each is seen to once. */
  *#link(first: Placed, plan: Plan): Generator<void> {
    const chain = new Set<Placed>();
    let next: Placed | undefined = first;
    for (; next !== undefined && !this.#linked.has(next); next = hardlinkBehind(next, plan)) {
      if (chain.has(next)) {
        this.#note('hardlink refused', next.entry.name);
        break;
      }
      chain.add(next);
      yield;
    }
    for (const placed of [...chain].reverse()) {
      this.#linked.set(placed, this.#makeLink(placed, plan));
      yield;
    }
  }

  /** Returns what it is a name of; undefined when it was left out. */
  #makeLink(placed: Placed, plan: Plan): Inode | undefined {
    const { entry, parts, path } = placed;
    const name = parts.at(-1);
    const target = cleanPath(entry.linkname);
    if (target === undefined || name === undefined) {
      this.#note('hardlink refused', entry.name);
      return undefined;
    }
    const inode = this.#targetOf(placed, target.parts, plan);
    if (inode === undefined) {
      this.#note('hardlink missing', entry.name);
      return undefined;
    }
    if (inode.type === 'dir' || target.parts.join('/') === path) {
      this.#note('hardlink refused', entry.name);
      return undefined;
    }
    if (!hasAttributesOf(entry, inode)) this.#note('hardlink attributes', entry.name);
    const folder = this.#parent(parts, entry);
    if (folder === undefined) return undefined;
    this.#tree.put(folder, name, inode, this.#number);
    return inode;
  }

  #targetOf(placed: Placed, parts: readonly string[], plan: Plan): Inode | undefined {
    const base = parts.at(-1);
    if (base === undefined) return this.#tree.root.inode;
    if (parts.at(-2) === AUFS_LINKS) return plan.aufsLinks.get(base);
    const sameLayer = plan.entries.get(parts.join('/'));
    if (sameLayer !== undefined) {
      if (sameLayer.at > placed.at) this.#note('hardlink forward', placed.entry.name);
      if (sameLayer.entry.type === 'hardlink') return this.#linked.get(sameLayer);
    }
    const folder = this.#tree.lookUp(parts.slice(0, -1));
    if (folder === undefined || folder === 'refused') return undefined;
    return folder.node.children.get(base)?.inode;
  }

  #inodeOf(entry: TarEntry): Inode {
    const { type } = entry;
    const isFile = type === 'reg' || type === 'hardlink';
    const isDevice = type === 'char' || type === 'block';
    return {
      type: isFile ? 'reg' : type,
      mode: entry.mode & 0o7777,
      uid: entry.uid,
      gid: entry.gid,
      uname: entry.uname,
      gname: entry.gname,
      mtime: entry.mtime,
      size: isFile ? (entry.sparse?.size ?? entry.size) : 0,
      target: type === 'symlink' ? entry.linkname : '',
      devmajor: isDevice ? entry.devmajor : 0,
      devminor: isDevice ? entry.devminor : 0,
      xattrs: xattrs(entry),
      content: isFile
        ? {
            layer: this.#number,
            diffID: this.#layer.diffID,
            offset: entry.offset,
            size: entry.size,
            sparse: entry.sparse,
          }
        : undefined,
    };
  }
}

/** The hardlink of the same layer that another one is a link to. */
function hardlinkBehind({ entry }: Placed, plan: Plan): Placed | undefined {
  const parts = cleanPath(entry.linkname)?.parts ?? [];
  if (parts.at(-2) === AUFS_LINKS) return undefined;
  const target = plan.entries.get(parts.join('/'));
  return target?.entry.type === 'hardlink' ? target : undefined;
}

/** Folders before what is in them; otherwise by name, so that the order of the tar does not matter. */
function byDepth(a: Placed, b: Placed): number {
  const isFolder = ({ entry }: Placed): number => (entry.type === 'dir' ? 0 : 1);
  return a.parts.length - b.parts.length || isFolder(a) - isFolder(b) || compareBytes(a.path, b.path);
}

function hasAttributesOf(entry: TarEntry, inode: Inode): boolean {
  return (
    // A symlink's mode says nothing.
    (inode.type === 'symlink' || (entry.mode & 0o7777) === inode.mode) &&
    entry.uid === inode.uid &&
    entry.gid === inode.gid &&
    entry.mtime.seconds === inode.mtime.seconds &&
    entry.mtime.nanoseconds === inode.mtime.nanoseconds
  );
}
