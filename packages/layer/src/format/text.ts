import type { MergedView, ViewNode } from '../merge/merged-view.js';
import type { NodeType } from '../merge/tree.js';
import { formatTimestamp } from '../ztoc/timestamp.js';
import { decimalTime, escapeControls } from './line-text.js';

const LETTERS: Readonly<Record<NodeType, string>> = {
  reg: '-',
  dir: 'd',
  symlink: 'l',
  char: 'c',
  block: 'b',
  fifo: 'p',
};

/** `-rwxr-sr-t`, as `ls -l` has it. */
export function formatMode(type: NodeType, mode: number): string {
  const bits = Array.from('rwxrwxrwx', (letter, index) => ((mode >>> (8 - index)) & 1 ? letter : '-'));
  const special = [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const;
  for (const [bit, at, letter] of special) {
    if ((mode & bit) !== 0) bits[at] = bits[at] === 'x' ? letter : letter.toUpperCase();
  }
  return LETTERS[type] + bits.join('');
}

/** One line for each name: mode, names of the file, owner, size or device, time, path, target. */
export function* formatText(view: MergedView): Generator<string> {
  for (const node of view.nodes()) yield `${line(node)}\n`;
}

function line({ path, nlink, inode }: ViewNode): string {
  const { type, mode, uid, gid, size, devmajor, devminor, mtime, target } = inode;
  const isDevice = type === 'char' || type === 'block';
  const extent = isDevice ? `${devmajor},${devminor}` : String(size);
  const time = formatTimestamp(mtime);
  return [
    formatMode(type, mode),
    String(nlink).padStart(3),
    `${uid}:${gid}`.padEnd(9),
    extent.padStart(10),
    time === '' ? decimalTime(mtime) : time,
    `/${escapeControls(path)}${type === 'symlink' ? ` -> ${escapeControls(target)}` : ''}`,
  ].join(' ');
}
