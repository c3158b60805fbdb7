import { compareBytes } from '../tar/byte-string.js';
import type { MergedView, ViewNode } from './merged-view.js';
import type { Content, Inode } from './tree.js';

/** What of a file is different. */
export type Aspect =
  'type' | 'mode' | 'owner' | 'time' | 'size' | 'content' | 'target' | 'device' | 'attributes';

export type Change =
  | { readonly kind: 'added'; readonly path: string; readonly after: ViewNode }
  | { readonly kind: 'removed'; readonly path: string; readonly before: ViewNode }
  | {
      readonly kind: 'changed';
      readonly path: string;
      readonly before: ViewNode;
      readonly after: ViewNode;
      readonly aspects: readonly Aspect[];
    };

/** Whether two files of one size have the same bytes. Asked only when they are not in the same place. */
export type SameContent = (before: Content, after: Content) => Promise<boolean>;

/** What has to be done to one image to get the other, path by path in the order of bytes. */
export async function* diffViews(
  before: MergedView,
  after: MergedView,
  same: SameContent,
): AsyncGenerator<Change> {
  const left = before.nodes();
  const right = after.nodes();
  let a = left.next();
  let b = right.next();
  while (a.done !== true || b.done !== true) {
    const order = a.done === true ? 1 : b.done === true ? -1 : comparePaths(a.value.path, b.value.path);
    if (order < 0 && a.done !== true) {
      yield { kind: 'removed', path: a.value.path, before: a.value };
      a = left.next();
    } else if (order > 0 && b.done !== true) {
      yield { kind: 'added', path: b.value.path, after: b.value };
      b = right.next();
    } else if (a.done !== true && b.done !== true) {
      const aspects = await compare(a.value.inode, b.value.inode, same);
      if (aspects.length > 0)
        yield { kind: 'changed', path: a.value.path, before: a.value, after: b.value, aspects };
      a = left.next();
      b = right.next();
    }
  }
}

/** The order in which a view has its names: folder by folder, so `a/x` comes before `a!`. */
function comparePaths(a: string, b: string): number {
  const [left, right] = [a.split('/'), b.split('/')];
  const length = Math.min(left.length, right.length);
  for (let index = 0; index < length; index++) {
    const order = compareBytes(left[index] ?? '', right[index] ?? '');
    if (order !== 0) return order;
  }
  // The root is the empty path, and comes first.
  if (a === '' || b === '') return a.length - b.length;
  return left.length - right.length;
}

async function compare(a: Inode, b: Inode, same: SameContent): Promise<Aspect[]> {
  if (a === b) return [];
  if (a.type !== b.type) return ['type'];
  const aspects: Aspect[] = [];
  if (a.mode !== b.mode) aspects.push('mode');
  if (a.uid !== b.uid || a.gid !== b.gid) aspects.push('owner');
  if (a.mtime.seconds !== b.mtime.seconds || a.mtime.nanoseconds !== b.mtime.nanoseconds)
    aspects.push('time');
  if (a.target !== b.target) aspects.push('target');
  if (a.devmajor !== b.devmajor || a.devminor !== b.devminor) aspects.push('device');
  if (!isSameMap(a.xattrs, b.xattrs)) aspects.push('attributes');
  if (a.size !== b.size) aspects.push('size');
  else if (a.content !== undefined && b.content !== undefined && a.size > 0) {
    const isSamePlace = a.content.diffID === b.content.diffID && a.content.offset === b.content.offset;
    if (!isSamePlace && !(await same(a.content, b.content))) aspects.push('content');
  }
  return aspects;
}

function isSameMap(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}
