// Facts: what an entry of a layer means, apart from how a tar says it. `as` is the encoding; `unlike` says, for
// an entry that umoci cannot take, or takes another way, which it is.
import { plain } from './tar-encodings.mjs';

const COMMON = {
  data: Buffer.alloc(0),
  uid: 0,
  gid: 0,
  uname: '',
  gname: '',
  mtime: [1_600_000_000, 0],
  linkname: '',
  devmajor: 0,
  devminor: 0,
  xattrs: {},
  as: plain,
  unlike: undefined,
};

export const file = (name, data = '', more = {}) => ({
  ...COMMON,
  type: 'reg',
  mode: 0o644,
  name,
  data: Buffer.from(data),
  ...more,
});

export const dir = (name, more = {}) => ({ ...COMMON, type: 'dir', mode: 0o755, name, ...more });

export const symlink = (name, linkname, more = {}) => ({
  ...COMMON,
  type: 'symlink',
  mode: 0o777,
  name,
  linkname,
  ...more,
});

export const hardlink = (name, linkname, more = {}) => ({
  ...COMMON,
  type: 'hardlink',
  mode: 0o644,
  name,
  linkname,
  ...more,
});

export const fifo = (name, more = {}) => ({ ...COMMON, type: 'fifo', mode: 0o600, name, ...more });

export const device = (type, name, devmajor, devminor) => ({
  ...COMMON,
  type,
  mode: 0o666,
  name,
  devmajor,
  devminor,
});

/** Hides what lower layers have at a path. */
export function whiteout(path, more = {}) {
  const slash = path.lastIndexOf('/') + 1;
  return file(`${path.slice(0, slash)}.wh.${path.slice(slash)}`, '', more);
}

/** Hides all that lower layers have in a folder. */
export const opaque = (folder, more = {}) =>
  file(folder === '' ? '.wh..wh..opq' : `${folder}/.wh..wh..opq`, '', more);

/** Bytes that look like nothing in particular, the same each time, and compress to about half. */
export function filler(size, seed) {
  const bytes = Buffer.alloc(size);
  let state = seed * 2_654_435_761 + 1;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = 97 + ((state >>> 24) & 15);
  }
  return bytes;
}
