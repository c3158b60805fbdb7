// What an image of facts has in it, by the OCI layer specification read literally: a flat list of paths, changed
// entry by entry. Slow, and with nothing in common with the merged view, which is checked against it.
const AUFS = '.wh..wh.';
const OPAQUE = '.wh..wh..opq';

/** Of the config that the images of the harness have: 2024-01-01. */
const CREATED = [1_704_067_200, 0];

const implied = () => ({ type: 'dir', mode: 0o755, uid: 0, gid: 0, mtime: CREATED, isImplied: true });

/** Names from the root on; undefined for a name that leaves it. */
function partsOf(name) {
  const parts = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts;
}

/** The path of an entry once the symlinks that lead to it are followed, one deep; undefined when it leaves the root. */
function resolve(files, parts) {
  let path = [];
  for (const part of parts.slice(0, -1)) {
    path.push(part);
    const found = files.get(path.join('/'));
    if (found?.type === 'symlink') {
      const from = found.linkname.startsWith('/') ? [] : path.slice(0, -1);
      path = partsOf([...from, found.linkname].join('/'));
      if (path === undefined) return undefined;
    }
  }
  return [...path, ...parts.slice(-1)];
}

function removeBelow(files, path) {
  for (const other of [...files.keys()]) {
    if (other !== '' && (path === '' || other.startsWith(`${path}/`))) files.delete(other);
  }
}

function makeParents(files, parts) {
  for (let length = 1; length < parts.length; length++) {
    const folder = parts.slice(0, length).join('/');
    if (files.get(folder)?.type !== 'dir') files.set(folder, implied());
  }
}

function put(files, parts, node) {
  if (parts === undefined) return;
  const path = parts.join('/');
  makeParents(files, parts);
  if (node.type !== 'dir') removeBelow(files, path);
  files.set(path, node);
}

function applyWhiteouts(files, entries) {
  for (const { parts } of entries) {
    const name = parts.at(-1) ?? '';
    if (!name.startsWith('.wh.')) continue;
    const folder = resolve(files, parts).slice(0, -1).join('/');
    if (name === OPAQUE) removeBelow(files, folder);
    else {
      const hidden = [...parts.slice(0, -1), name.slice(4)].join('/');
      files.delete(hidden);
      removeBelow(files, hidden);
    }
  }
}

function applyLayer(files, facts) {
  const named = facts
    .filter((fact) => fact.bytes === undefined)
    .map((fact) => ({ fact, parts: partsOf(fact.name) }))
    .filter(({ fact, parts }) => parts !== undefined && fact.name !== '');
  const isAufs = ({ parts }) => parts.some((part) => part.startsWith(AUFS) && part !== OPAQUE);
  const aufs = new Map(named.filter(isAufs).map(({ fact, parts }) => [parts.join('/'), fact]));
  const entries = named.filter((entry) => !isAufs(entry));
  applyWhiteouts(files, entries);
  const links = [];
  for (const { fact, parts } of entries) {
    if (parts.at(-1)?.startsWith('.wh.') === true) makeParents(files, parts);
    else if (fact.type === 'hardlink') links.push({ fact, parts });
    else put(files, resolve(files, parts), fact);
  }
  // A hardlink may stand before its target, which may be a hardlink: until nothing more is found.
  for (let left = links, before; left.length !== before;) {
    before = left.length;
    left = left.filter(({ fact, parts }) => {
      const target = resolve(files, partsOf(fact.linkname)).join('/');
      const node = aufs.get(target) ?? files.get(target);
      if (node !== undefined) put(files, resolve(files, parts), node);
      return node === undefined;
    });
  }
}

/** Facts by path; two paths of one file have the same object. */
export function literalFiles(layers) {
  const files = new Map([['', implied()]]);
  for (const { entries } of layers) applyLayer(files, entries);
  return files;
}
