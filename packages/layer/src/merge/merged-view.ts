import { throwIfAborted } from '@layercache/oci';
import type { Timestamp } from '../tar/entry.js';
import { compareBytes } from '../tar/byte-string.js';
import { Turn } from '../turn.js';
import { LayerApplication, type LayerFiles } from './apply-layer.js';
import { cleanPath } from './clean-path.js';
import { NoteList, type Note } from './note.js';
import { MAX_STEPS, MAX_SYMLINKS, Tree, type Inode, type TreeNode } from './tree.js';

/** One name in the merged image. */
export interface ViewNode {
  /** From the root on, without a slash in front; empty for the root. Text as `decodeBytes` makes it. */
  readonly path: string;
  /** Layer whose entry made it as it is; undefined when it is only implied. */
  readonly layer: number | undefined;
  /** Shared by hardlinks: two nodes are one file when this is the same object. */
  readonly inode: Inode;
  /** Names of the file; of a folder, as file systems count them: 2 and one for each folder in it. */
  readonly nlink: number;
}

export interface MergeOptions {
  /** Time of the root, and of folders that no entry makes: `created` of the image's config. Default: 1970. */
  readonly time?: Timestamp | undefined;
}

export interface InterruptibleMergeOptions extends MergeOptions {
  readonly signal?: AbortSignal | undefined;
}

/** The files of an image as its layers make them, applied bottom to top. Nothing of their contents is read. */
export class MergedView {
  readonly #tree: Tree;
  readonly #links = new Map<Inode, number>();
  /** What the layers left to interpretation. In the order of layers, then of kind of work. 10,000 at most. */
  readonly notes: readonly Note[];
  /** Notes there would be beyond those. */
  readonly omittedNotes: number;

  private constructor(tree: Tree, { notes, omitted }: NoteList) {
    this.#tree = tree;
    this.notes = notes;
    this.omittedNotes = omitted;
    const folders = [tree.root];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      for (const node of folder.children.values()) {
        if (node.isFolder) folders.push(node);
        else this.#links.set(node.inode, (this.#links.get(node.inode) ?? 0) + 1);
      }
    }
  }

  /**
   * Merges layers in one go. For layers that may be of any size, {@link merge} does the same and lets others work.
   *
   * @param layers bottom to top
   * @throws LayercacheError `ARCHIVE_INVALID` when a limit is met
   */
  static of(layers: readonly LayerFiles[], options: MergeOptions = {}): MergedView {
    const work = MergedView.#steps(layers, options);
    let step = work.next();
    while (step.done !== true) step = work.next();
    return step.value;
  }

  /**
   * Merges layers in short turns, between which other work is done and the signal is looked at.
   *
   * @param layers bottom to top
   * @throws LayercacheError `ARCHIVE_INVALID` when a limit is met, `ABORTED`
   */
  static async merge(
    layers: readonly LayerFiles[],
    { signal, ...options }: InterruptibleMergeOptions = {},
  ): Promise<MergedView> {
    throwIfAborted(signal);
    const work = MergedView.#steps(layers, options);
    const turn = new Turn();
    let step = work.next();
    while (step.done !== true) {
      if (turn.isOver) await turn.next(signal);
      step = work.next();
    }
    return step.value;
  }

  static *#steps(layers: readonly LayerFiles[], { time }: MergeOptions): Generator<void, MergedView> {
    const tree = new Tree(time ?? { seconds: 0, nanoseconds: 0 });
    const notes = new NoteList();
    for (const [number, layer] of layers.entries())
      yield* new LayerApplication(tree, number, layer, notes).run();
    tree.complete();
    return new MergedView(tree, notes);
  }

  /** All names, a folder before what is in it, in the order of their bytes. The root comes first. */
  *nodes(): Generator<ViewNode> {
    for (const [path, node] of walk(this.#tree.root)) yield this.#view(path, node);
  }

  /**
   * The node at a path, with symlinks followed as if the root of the image were `/`, the last one too unless
   * `keepLink`. Undefined when there is none.
   */
  find(path: string, { keepLink = false }: { readonly keepLink?: boolean } = {}): ViewNode | undefined {
    let from = this.#tree.root;
    let parts = [...(path === '' ? [] : (cleanPath(path)?.parts ?? ['..']))];
    for (let symlinks = 0; symlinks <= MAX_SYMLINKS; symlinks++) {
      while (parts.at(-1) === '' || parts.at(-1) === '.') parts.pop();
      const name = parts.at(-1) ?? '..';
      const found = this.#tree.lookUp(name === '..' ? parts : parts.slice(0, -1), from);
      if (found === undefined || found === 'refused') return undefined;
      if (name === '..') return this.#view(found.node.path, found.node);
      const node = found.node.children.get(name);
      if (node === undefined) return undefined;
      if (keepLink || node.inode.type !== 'symlink') return this.#view(node.path, node);
      const { target } = node.inode;
      from = target.startsWith('/') ? this.#tree.root : found.node;
      parts = target.split('/', MAX_STEPS);
    }
    return undefined;
  }

  #view(path: string, node: TreeNode): ViewNode {
    const { inode, layer } = node;
    if (!node.isFolder) return { path, layer, inode, nlink: this.#links.get(inode) ?? 1 };
    let folders = 0;
    for (const child of node.children.values()) if (child.isFolder) folders++;
    return { path, layer, inode, nlink: 2 + folders };
  }
}

function* walk(root: TreeNode): Generator<[string, TreeNode]> {
  const stack: [string, TreeNode][] = [['', root]];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    yield top;
    const [path, { children }] = top;
    const names = [...children].sort(([a], [b]) => compareBytes(b, a));
    for (const [name, child] of names) stack.push([path === '' ? name : `${path}/${name}`, child]);
  }
}
