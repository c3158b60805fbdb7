/**
 * What a layer left to interpretation, or asked for that was refused. The specification does not settle these;
 * other programs may have decided otherwise.
 */
export type NoteKind =
  /** The name is empty, leaves the root, or has a NUL: the entry is left out. */
  | 'name refused'
  /** The name is absolute or has `..` in it, and stays inside the root all the same. */
  | 'name cleaned'
  /** A folder that no entry makes: root's, 0755, of the image's time. */
  | 'parent implied'
  /** A path stands twice in one layer: the last entry counts. */
  | 'duplicate'
  /** A path leads through a symlink, which was followed inside the root. */
  | 'through symlink'
  /** A path leads through symlinks without end, or out of the root: the entry is left out. */
  | 'symlink refused'
  /** A path leads through something that is no folder: it became one. */
  | 'parent replaced'
  /** A hardlink to nothing: the entry is left out. */
  | 'hardlink missing'
  /** A hardlink to a folder, or to itself: the entry is left out. */
  | 'hardlink refused'
  /** A hardlink stands before its target. */
  | 'hardlink forward'
  /** A hardlink has other attributes than its target: the target's count. */
  | 'hardlink attributes'
  /** A whiteout of no name, or used as a folder: left out. */
  | 'whiteout refused'
  /** One layer both whites a path out and makes it: the whiteout concerns the layers below. */
  | 'whiteout and entry'
  /** A file of AUFS's own: left out, but for the hardlinks that lead to it. */
  | 'AUFS leftover';

export interface Note {
  readonly kind: NoteKind;
  /** Number of the layer, from 0 at the bottom. */
  readonly layer: number;
  /** As the layer has it. */
  readonly name: string;
}

/** Notes on one image, at most: a folder that is implied takes a note, and a small layer can imply millions. */
const MAX_NOTES = 10_000;

/** The notes on an image. Above a number of them, they are only counted. */
export class NoteList {
  readonly notes: Note[] = [];
  /** Notes that are not in the list. */
  omitted = 0;

  /** @param name may be made only for a note that is kept: a path takes its time */
  add(kind: NoteKind, layer: number, name: string | (() => string)): void {
    if (this.notes.length === MAX_NOTES) this.omitted++;
    else this.notes.push({ kind, layer, name: typeof name === 'string' ? name : name() });
  }
}
