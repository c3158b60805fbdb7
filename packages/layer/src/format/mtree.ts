import type { MergedView, ViewNode } from '../merge/merged-view.js';
import type { NodeType } from '../merge/tree.js';
import { encodeBytes } from '../tar/byte-string.js';
import { decimalTime } from './line-text.js';

const TYPES: Readonly<Record<NodeType, string>> = {
  reg: 'file',
  dir: 'dir',
  symlink: 'link',
  char: 'char',
  block: 'block',
  fifo: 'fifo',
};

/** BSD mtree(5), version 2.0, each name with its full path: what `bsdtar` and `gomtree` read. */
export function* formatMtree(view: MergedView): Generator<string> {
  yield '#mtree v2.0\n';
  for (const node of view.nodes()) yield `${line(node)}\n`;
}

function line({ path, nlink, inode }: ViewNode): string {
  const { type, mode, uid, gid, mtime, size, target, devmajor, devminor } = inode;
  const words = [
    path === '' ? '.' : `./${escape(path)}`,
    `type=${TYPES[type]}`,
    `mode=${mode.toString(8).padStart(4, '0')}`,
    `uid=${uid}`,
    `gid=${gid}`,
    `nlink=${nlink}`,
    `time=${decimalTime(mtime)}`,
  ];
  if (type === 'reg') words.push(`size=${size}`);
  if (type === 'symlink') words.push(`link=${escape(target)}`);
  if (type === 'char' || type === 'block') words.push(`device=linux,${devmajor},${devminor}`);
  return words.join(' ');
}

/** vis(3) with VIS_OCTAL: everything but plain printing characters as `\ooo`. */
function escape(text: string): string {
  let escaped = '';
  for (const byte of encodeBytes(text)) {
    const isPlain = byte > 0x20 && byte < 0x7f && byte !== 0x5c && byte !== 0x23 && byte !== 0x3d;
    escaped += isPlain ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`;
  }
  return escaped;
}
