import type { Digest } from '@layercache/oci';
import { compareBytes } from '../tar/byte-string.js';
import { xattrs, type TarEntry } from '../tar/entry.js';
import { cleanPath } from './clean-path.js';
import type { Note, NoteKind } from './note.js';
import { lookUp, type Inode, type Tree, type TreeNode } from './tree.js';

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
  readonly #notes: Note[];
  /** Nodes of this layer, by the entry that made them. */
  readonly #made = new Map<Placed, TreeNode>();

  constructor(tree: Tree, number: number, layer: LayerFiles, notes: Note[]) {
    this.#tree = tree;
    this.#number = number;
    this.#layer = layer;
    this.#notes = notes;
  }

  run(): void {
    const plan = this.#plan();
    for (const whiteout of plan.whiteouts) this.#hide(whiteout, plan);
    const placed = [...plan.entries.values()].sort(byDepth);
    for (const each of placed) if (each.entry.type !== 'hardlink') this.#place(each);
    for (const each of placed) if (each.entry.type === 'hardlink') this.#link(each, plan, []);
    // A whiteout stands in a folder, which unpacking it would make.
    for (const { parts, entry } of plan.whiteouts) this.#parent(parts, entry);
  }

  #note(kind: NoteKind, name: string): void {
    this.#notes.push({ kind, layer: this.#number, name });
  }

  #plan(): Plan {
    const plan: Plan = { whiteouts: [], entries: new Map(), aufsLinks: new Map() };
    this.#layer.entries.forEach((entry, at) => {
      const path = cleanPath(entry.name);
      if (path === undefined) {
        this.#note('name refused', entry.name);
        return;
      }
      if (path.isUnusual) this.#note('name cleaned', entry.name);
      const { parts } = path;
      const base = parts.at(-1) ?? '';
      const folders = parts.slice(0, -1);
      if (parts.some((part) => part.startsWith(AUFS)) && base !== OPAQUE) {
        this.#note('AUFS leftover', entry.name);
        if (folders.at(-1) === AUFS_LINKS) plan.aufsLinks.set(base, this.#inodeOf(entry));
      } else if (folders.some((part) => part.startsWith(WHITEOUT)))
        this.#note('whiteout refused', entry.name);
      else if (base.startsWith(WHITEOUT)) plan.whiteouts.push({ entry, parts, at });
      else {
        const key = parts.join('/');
        if (plan.entries.has(key)) this.#note('duplicate', entry.name);
        plan.entries.set(key, { entry, parts, at });
      }
    });
    return plan;
  }

  #hide({ entry, parts }: Placed, plan: Plan): void {
    const base = parts.at(-1) ?? '';
    const hidden = base.slice(WHITEOUT.length);
    if (base !== OPAQUE && (hidden === '' || hidden === '.' || hidden === '..')) {
      this.#note('whiteout refused', entry.name);
      return;
    }
    if (this.#leavesSymlink(parts, plan)) return;
    const folder = lookUp(this.#tree.root, parts.slice(0, -1));
    if (folder === 'refused') this.#note('symlink refused', entry.name);
    if (folder === undefined || folder === 'refused') return;
    if (base === OPAQUE) folder.node.children.clear();
    else {
      folder.node.children.delete(hidden);
      if (plan.entries.has([...parts.slice(0, -1), hidden].join('/')))
        this.#note('whiteout and entry', entry.name);
    }
  }

  /**
   * Whether a path leads through a symlink of a lower layer in whose place this layer puts a folder. There is
   * nothing to hide then: that folder is new, and what the symlink led to is another.
   */
  #leavesSymlink(parts: readonly string[], plan: Plan): boolean {
    for (let length = 1; length < parts.length; length++) {
      if (plan.entries.get(parts.slice(0, length).join('/'))?.entry.type !== 'dir') continue;
      const folder = lookUp(this.#tree.root, parts.slice(0, length - 1));
      if (folder === undefined || folder === 'refused') return false;
      if (folder.node.children.get(parts[length - 1] ?? '')?.inode.type === 'symlink') return true;
    }
    return false;
  }

  /** The folder that an entry goes into; undefined when the entry is refused. */
  #parent(parts: readonly string[], entry: TarEntry): TreeNode | undefined {
    const folder = this.#tree.makeFolder(parts.slice(0, -1), (made, isReplaced) => {
      this.#note(isReplaced ? 'parent replaced' : 'parent implied', made.join('/'));
    });
    if (folder === 'refused') {
      this.#note('symlink refused', entry.name);
      return undefined;
    }
    if (folder.throughSymlink) this.#note('through symlink', entry.name);
    return folder.node;
  }

  #place(placed: Placed): void {
    const { entry, parts } = placed;
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
      this.#made.set(placed, there);
    } else this.#made.set(placed, this.#tree.put(folder, name, inode, this.#number));
  }

  /** @param chain hardlinks that wait for this one, to tell a circle */
  #link(placed: Placed, plan: Plan, chain: readonly Placed[]): TreeNode | undefined {
    const before = this.#made.get(placed);
    if (before !== undefined) return before;
    const { entry, parts } = placed;
    const name = parts.at(-1);
    const target = cleanPath(entry.linkname);
    if (target === undefined || name === undefined || chain.includes(placed) || chain.length > 1000) {
      this.#note('hardlink refused', entry.name);
      return undefined;
    }
    const inode = this.#targetOf(placed, target.parts, plan, [...chain, placed]);
    if (inode === undefined) {
      this.#note('hardlink missing', entry.name);
      return undefined;
    }
    if (inode.type === 'dir' || target.parts.join('/') === parts.join('/')) {
      this.#note('hardlink refused', entry.name);
      return undefined;
    }
    if (!hasAttributesOf(entry, inode)) this.#note('hardlink attributes', entry.name);
    const folder = this.#parent(parts, entry);
    if (folder === undefined) return undefined;
    const node = this.#tree.put(folder, name, inode, this.#number);
    this.#made.set(placed, node);
    return node;
  }

  #targetOf(
    placed: Placed,
    parts: readonly string[],
    plan: Plan,
    chain: readonly Placed[],
  ): Inode | undefined {
    const base = parts.at(-1);
    if (base === undefined) return this.#tree.root.inode;
    if (parts.at(-2) === AUFS_LINKS) return plan.aufsLinks.get(base);
    const sameLayer = plan.entries.get(parts.join('/'));
    if (sameLayer !== undefined) {
      if (sameLayer.at > placed.at) this.#note('hardlink forward', placed.entry.name);
      if (sameLayer.entry.type === 'hardlink') return this.#link(sameLayer, plan, chain)?.inode;
    }
    const folder = lookUp(this.#tree.root, parts.slice(0, -1));
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

/** Folders before what is in them; otherwise by name, so that the order of the tar does not matter. */
function byDepth(a: Placed, b: Placed): number {
  const isFolder = ({ entry }: Placed): number => (entry.type === 'dir' ? 0 : 1);
  return (
    a.parts.length - b.parts.length ||
    isFolder(a) - isFolder(b) ||
    compareBytes(a.parts.join('/'), b.parts.join('/'))
  );
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
