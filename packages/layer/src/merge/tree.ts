import { LayercacheError, type Digest } from '@layercache/oci';
import type { EntryType, SparseMap, Timestamp } from '../tar/entry.js';

export type NodeType = Exclude<EntryType, 'hardlink'>;

/** Where the bytes of a file are. */
export interface Content {
  /** Number of the layer, from 0 at the bottom. */
  readonly layer: number;
  readonly diffID: Digest;
  /** In the tar of that layer. */
  readonly offset: number;
  /** Bytes stored there. */
  readonly size: number;
  readonly sparse: SparseMap | undefined;
}

/** What hardlinks share. */
export interface Inode {
  readonly type: NodeType;
  /** Permission bits with setuid, setgid, sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly uname: string;
  readonly gname: string;
  readonly mtime: Timestamp;
  /** Bytes of a regular file, holes included. */
  readonly size: number;
  /** Target of a symlink, as it is. */
  readonly target: string;
  readonly devmajor: number;
  readonly devminor: number;
  readonly xattrs: ReadonlyMap<string, string>;
  readonly content: Content | undefined;
}

/** Of everything but folders; never written to. */
const NO_CHILDREN = new Map<string, TreeNode>();

/** A name in a folder. */
export class TreeNode {
  inode: Inode;
  /** Layer whose entry made it as it is; undefined when it is only implied. */
  layer: number | undefined;
  readonly children: Map<string, TreeNode>;
  readonly name: string;
  /** The folder it is in; undefined for the root. */
  readonly parent: TreeNode | undefined;
  /** Folders above it. */
  readonly depth: number;
  /** Characters of its path. */
  readonly length: number;

  constructor(inode: Inode, layer: number | undefined, parent: TreeNode | undefined, name: string) {
    this.inode = inode;
    this.layer = layer;
    this.children = inode.type === 'dir' ? new Map<string, TreeNode>() : NO_CHILDREN;
    this.parent = parent;
    this.name = name;
    this.depth = parent === undefined ? 0 : parent.depth + 1;
    this.length = parent === undefined ? 0 : parent.length + 1 + name.length;
  }

  get isFolder(): boolean {
    return this.inode.type === 'dir';
  }

  /** From the root on, without a slash in front; empty for the root. */
  get path(): string {
    const names: string[] = [];
    let node: TreeNode | undefined = this.parent === undefined ? undefined : this;
    for (; node?.parent !== undefined; node = node.parent) names.push(node.name);
    return names.reverse().join('/');
  }
}

/** Where a path leads; `refused`: out of the root, or through too many symlinks. */
export type Lookup = { readonly node: TreeNode; readonly throughSymlink: boolean } | 'refused';

/** As Linux: more are taken for a loop. */
export const MAX_SYMLINKS = 40;
/** Steps of one symlink's target. Linux takes no path of more. */
export const MAX_STEPS = 4096;

/**
 * Steps of all symlinks that are followed while an image is merged. A target is followed once as long as nothing on
 * the way is replaced, so that real images need a few thousand; without a bound, a small layer could ask for hours.
 */
const MAX_SYMLINK_STEPS = 20_000_000;

/** Names in all layers together. A path implies its folders, so that a small tar could ask for very many. */
const MAX_NODES = 2_000_000;

/** Folders above a name, symlinks followed. Linux takes no path that is deeper (4,096 bytes, two for each step). */
export const MAX_DEPTH = 2048;

/** Characters of a path, symlinks followed. The tar reader takes no name that is longer. */
const MAX_PATH = 64 << 10;

/** A folder is missing in `here`: makes it, or does not. */
export type Missing = (here: TreeNode, name: string) => TreeNode | undefined;

const LEAVE_MISSING: Missing = () => undefined;

/** Where a symlink leads, as long as the tree is of that version. */
interface Resolved {
  readonly version: number;
  readonly target: TreeNode | 'refused';
  /** Symlinks that its own target leads through. */
  readonly links: number;
}

/** What one look-up has done so far. */
interface Walk {
  links: number;
  readonly missing: Missing;
}

/** The files of an image, without their bytes. */
export class Tree {
  readonly root: TreeNode;
  readonly #impliedFolder: Inode;
  #nodes = 0;
  /** Goes up when a folder or a symlink is replaced or removed: only then can a path lead elsewhere. */
  #version = 0;
  readonly #resolved = new WeakMap<TreeNode, Resolved>();
  #symlinkSteps = 0;

  constructor(time: Timestamp) {
    this.#impliedFolder = {
      type: 'dir',
      mode: 0o755,
      uid: 0,
      gid: 0,
      uname: '',
      gname: '',
      mtime: time,
      size: 0,
      target: '',
      devmajor: 0,
      devminor: 0,
      xattrs: new Map(),
      content: undefined,
    };
    this.root = new TreeNode(this.#impliedFolder, undefined, undefined, '');
  }

  /** Ends the merge: look-ups from now on are each on their own, and bounded by what one path may do. */
  complete(): void {
    this.#symlinkSteps = -Infinity;
  }

  /**
   * The folder at a path, with symlinks on the way followed as if `root` were `/`: none leads out of it. Undefined
   * when there is none.
   *
   * @param from the folder that the path starts in
   * @throws LayercacheError `ARCHIVE_INVALID` when a limit is met
   */
  lookUp(
    parts: readonly string[],
    from: TreeNode = this.root,
    missing: Missing = LEAVE_MISSING,
  ): Lookup | undefined {
    const walk: Walk = { links: 0, missing };
    const node = this.#walk(from, parts, walk);
    return node === undefined || node === 'refused' ? node : { node, throughSymlink: walk.links > 0 };
  }

  /**
   * The folder at a path, symlinks on the way followed. What is missing is made, or takes the place of what is
   * no folder; `onMake` is told of each.
   */
  makeFolder(parts: readonly string[], onMake: (made: TreeNode, isReplaced: boolean) => void): Lookup {
    const found = this.lookUp(parts, this.root, (here, name) => {
      const isReplaced = here.children.has(name);
      const made = this.put(here, name, this.#impliedFolder, undefined);
      onMake(made, isReplaced);
      return made;
    });
    return found ?? 'refused';
  }

  /** Puts a new thing at a name, in place of whatever is there. */
  put(folder: TreeNode, name: string, inode: Inode, layer: number | undefined): TreeNode {
    const node = new TreeNode(inode, layer, folder, name);
    this.#nodes++;
    if (this.#nodes > MAX_NODES) refuse(`the layers of the image make more than ${MAX_NODES} names`);
    if (node.depth > MAX_DEPTH) refuse(`a path of the image leads through more than ${MAX_DEPTH} folders`);
    if (node.length > MAX_PATH) refuse(`a path of the image has more than ${MAX_PATH} characters`);
    this.#leave(folder.children.get(name));
    folder.children.set(name, node);
    return node;
  }

  remove(folder: TreeNode, name: string): void {
    this.#leave(folder.children.get(name));
    folder.children.delete(name);
  }

  removeAll(folder: TreeNode): void {
    for (const child of folder.children.values()) this.#leave(child);
    folder.children.clear();
  }

  /** A node is about to go from its place. */
  #leave(node: TreeNode | undefined): void {
    if (node?.isFolder === true || node?.inode.type === 'symlink') this.#version++;
  }

  #walk(from: TreeNode, parts: readonly string[], walk: Walk): TreeNode | 'refused' | undefined {
    let here = from;
    for (const part of parts) {
      if (part === '' || part === '.') continue;
      let next: TreeNode | 'refused' | undefined;
      if (part === '..') next = here.parent ?? 'refused';
      else {
        const child = here.children.get(part);
        if (child?.inode.type === 'symlink') next = this.#follow(child, here, walk);
        else next = child?.isFolder === true ? child : walk.missing(here, part);
      }
      if (next === undefined || next === 'refused') return next;
      here = next;
    }
    return here;
  }

  #follow(link: TreeNode, folder: TreeNode, walk: Walk): TreeNode | 'refused' | undefined {
    walk.links++;
    if (walk.links > MAX_SYMLINKS) return 'refused';
    const known = this.#resolved.get(link);
    if (known?.version === this.#version) {
      walk.links += known.links;
      return walk.links > MAX_SYMLINKS ? 'refused' : known.target;
    }
    const before = walk.links;
    const { target } = link.inode;
    const steps = target.slice(0, MAX_STEPS * 2).split('/');
    if (steps.length > MAX_STEPS) return 'refused';
    this.#symlinkSteps += steps.length;
    if (this.#symlinkSteps > MAX_SYMLINK_STEPS)
      refuse(`the symlinks of the image take more than ${MAX_SYMLINK_STEPS} steps to follow`);
    const found = this.#walk(target.startsWith('/') ? this.root : folder, steps, walk);
    // Behind other symlinks, one may be refused for being the forty-first.
    if (found !== undefined && (found !== 'refused' || before === 1))
      this.#resolved.set(link, { version: this.#version, target: found, links: walk.links - before });
    return found;
  }
}

function refuse(problem: string): never {
  throw new LayercacheError('ARCHIVE_INVALID', `${problem}; it cannot be merged`);
}
