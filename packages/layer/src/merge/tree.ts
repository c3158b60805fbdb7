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

  constructor(inode: Inode, layer: number | undefined) {
    this.inode = inode;
    this.layer = layer;
    this.children = inode.type === 'dir' ? new Map<string, TreeNode>() : NO_CHILDREN;
  }

  get isFolder(): boolean {
    return this.inode.type === 'dir';
  }
}

export type Lookup =
  | { readonly node: TreeNode; readonly parts: readonly string[]; readonly throughSymlink: boolean }
  | 'refused';

/** As Linux: more are taken for a loop. */
export const MAX_SYMLINKS = 40;
/** Steps of one path, those of symlinks on it included. Linux takes no path of more. */
export const MAX_STEPS = 4096;

/** Names in all layers together. A path implies its folders, so that a small tar could ask for very many. */
const MAX_NODES = 2_000_000;

/** The files of an image, without their bytes. */
export class Tree {
  readonly root: TreeNode;
  readonly #impliedFolder: Inode;
  #nodes = 0;

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
    this.root = new TreeNode(this.#impliedFolder, undefined);
  }

  /**
   * The folder at a path, symlinks on the way followed. What is missing is made, or takes the place of what is
   * no folder; `onMake` is told of each.
   */
  makeFolder(
    parts: readonly string[],
    onMake: (parts: readonly string[], isReplaced: boolean) => void,
  ): Lookup {
    const found = lookUp(this.root, parts, (here, name, path) => {
      onMake([...path, name], here.children.has(name));
      return this.put(here, name, this.#impliedFolder, undefined);
    });
    return found ?? 'refused';
  }

  /** Puts a new thing at a name, in place of whatever is there. */
  put(folder: TreeNode, name: string, inode: Inode, layer: number | undefined): TreeNode {
    this.#nodes++;
    if (this.#nodes > MAX_NODES) {
      throw new LayercacheError(
        'ARCHIVE_INVALID',
        `the layers of the image make more than ${MAX_NODES} names; it cannot be merged`,
      );
    }
    const node = new TreeNode(inode, layer);
    folder.children.set(name, node);
    return node;
  }
}

/** A folder is missing in `here`: makes it, or does not. */
export type Missing = (here: TreeNode, name: string, path: readonly string[]) => TreeNode | undefined;

/**
 * The folder at a path, with symlinks on the way followed as if `root` were `/`: none leads out of it. Undefined
 * when there is none.
 */
export function lookUp(
  root: TreeNode,
  parts: readonly string[],
  missing: Missing = () => undefined,
): Lookup | undefined {
  const pending = [...parts].reverse();
  const path: string[] = [];
  const nodes = [root];
  let symlinks = 0;
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      if (path.pop() === undefined) return 'refused';
      nodes.pop();
      continue;
    }
    const here = nodes.at(-1) ?? root;
    let next = here.children.get(part);
    if (next?.inode.type === 'symlink') {
      symlinks++;
      if (symlinks > MAX_SYMLINKS) return 'refused';
      const { target } = next.inode;
      if (target.startsWith('/')) {
        path.length = 0;
        nodes.length = 1;
      }
      pending.push(
        ...target
          .slice(0, MAX_STEPS * 2)
          .split('/')
          .reverse(),
      );
      if (pending.length > MAX_STEPS) return 'refused';
      continue;
    }
    if (next?.isFolder !== true) next = missing(here, part, path);
    if (next === undefined) return undefined;
    path.push(part);
    nodes.push(next);
  }
  return { node: nodes.at(-1) ?? root, parts: path, throughSymlink: symlinks > 0 };
}
