import type { MergedView, ViewNode } from '../merge/merged-view.js';
import type { Inode } from '../merge/tree.js';
import { encodeBytes } from '../tar/byte-string.js';
import { decimalTime } from './line-text.js';

export interface JsonOptions {
  /** Layers by position whose files nobody has checked: their names have `"claimed": true`. */
  readonly claimedLayers?: ReadonlySet<number>;
}

/**
 * A JSON array with one line for each name. Text is as `decodeBytes` makes it: bytes that are not UTF-8 stand
 * as lone surrogates `\udc80` to `\udcff`. Values of extended attributes are base64.
 */
export function* formatJson(view: MergedView, options: JsonOptions = {}): Generator<string> {
  const { claimedLayers = new Set() } = options;
  const first = new Map<Inode, string>();
  let separator = '[\n';
  for (const node of view.nodes()) {
    yield `${separator}${JSON.stringify({ ...describe(node, first), ...(isClaimed(node, claimedLayers) ? { claimed: true } : {}) })}`;
    separator = ',\n';
  }
  yield '\n]\n';
}

/** A folder that no layer has, but names below it need, may be there for a claimed name only. */
function isClaimed({ layer }: ViewNode, claimedLayers: ReadonlySet<number>): boolean {
  return layer === undefined ? claimedLayers.size > 0 : claimedLayers.has(layer);
}

function describe({ path, layer, nlink, inode }: ViewNode, first: Map<Inode, string>): object {
  const { type, mode, uid, gid, uname, gname, mtime, size, target, devmajor, devminor, xattrs, content } =
    inode;
  const sameAs = type === 'dir' ? undefined : first.get(inode);
  if (sameAs === undefined) first.set(inode, path);
  return {
    path: `/${path}`,
    type,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    uname: uname === '' ? undefined : uname,
    gname: gname === '' ? undefined : gname,
    mtime: decimalTime(mtime),
    nlink,
    layer,
    size: type === 'reg' ? size : undefined,
    target: type === 'symlink' ? target : undefined,
    device: type === 'char' || type === 'block' ? [devmajor, devminor] : undefined,
    hardlinkOf: sameAs === undefined ? undefined : `/${sameAs}`,
    xattrs: xattrs.size === 0 ? undefined : Object.fromEntries(sortedXattrs(xattrs)),
    content:
      content === undefined || size === 0
        ? undefined
        : {
            diffID: content.diffID,
            offset: content.offset,
            size: content.size,
            isSparse: content.sparse !== undefined,
          },
  };
}

function sortedXattrs(xattrs: ReadonlyMap<string, string>): [string, string][] {
  return [...xattrs]
    .map(([name, value]): [string, string] => [name, encodeBytes(value).toString('base64')])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
