// A listing: one record for each path of an image, from wherever it comes, so that two can be compared.
import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { decodeBytes, encodeBytes } from '@layercache/layer';

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Sets `names` of each record: all paths of its file, where there are several. */
function withNames(records, fileOf) {
  const names = new Map();
  for (const path of records.keys()) {
    const file = fileOf(path);
    names.set(file, [...(names.get(file) ?? []), path]);
  }
  for (const [path, record] of records) {
    const all = names.get(fileOf(path));
    record.names = record.type === 'dir' || all.length === 1 ? '' : all.sort().join(' = ');
  }
  return records;
}

const modeOf = (type, mode) => (type === 'symlink' ? '' : mode.toString(8).padStart(4, '0'));
const deviceOf = (type, major, minor) => (type === 'char' || type === 'block' ? `${major},${minor}` : '');

const xattrsOf = (entries) =>
  entries
    .map(([name, value]) => `${name}=${value.toString('base64')}`)
    .sort()
    .join(' ');

/** What the literal model says. */
export function listingOfFacts(files) {
  const records = new Map();
  for (const [path, fact] of files) {
    const { type, mode, uid, gid, mtime, data, linkname, devmajor, devminor, xattrs = {} } = fact;
    records.set(path, {
      type,
      mode: modeOf(type, mode),
      owner: `${uid}:${gid}`,
      seconds: mtime[0],
      nanoseconds: mtime[1],
      size: type === 'reg' ? data.length : 0,
      sha256: type === 'reg' ? sha256(data) : '',
      target: type === 'symlink' ? linkname : '',
      device: deviceOf(type, devmajor, devminor),
      xattrs: xattrsOf(Object.entries(xattrs)),
      isImplied: fact.isImplied === true,
    });
  }
  return withNames(records, (path) => files.get(path));
}

/** What the merged view says, with contents read by random access. */
export async function listingOfView(view) {
  const records = new Map();
  const inodes = new Map();
  for (const { path, inode } of view.merged.nodes()) {
    const { type, mode, uid, gid, mtime, size, target, devmajor, devminor, xattrs } = inode;
    inodes.set(path, inode);
    records.set(path, {
      type,
      mode: modeOf(type, mode),
      owner: `${uid}:${gid}`,
      seconds: mtime.seconds,
      nanoseconds: mtime.nanoseconds,
      size,
      sha256: type === 'reg' ? await hashOf(await view.open(path)) : '',
      target,
      device: deviceOf(type, devmajor, devminor),
      xattrs: xattrsOf([...xattrs].map(([name, value]) => [name, encodeBytes(value)])),
    });
  }
  return withNames(records, (path) => inodes.get(path));
}

async function hashOf(stream) {
  const hash = createHash('sha256');
  for await (const bytes of stream) hash.update(bytes);
  return hash.digest('hex');
}

const KINDS = [
  ['dir', (stat) => stat.isDirectory()],
  ['symlink', (stat) => stat.isSymbolicLink()],
  ['fifo', (stat) => stat.isFIFO()],
  ['char', (stat) => stat.isCharacterDevice()],
  ['block', (stat) => stat.isBlockDevice()],
  ['reg', (stat) => stat.isFile()],
];

/** What a real file system has below a folder. Extended attributes are not looked at: Node cannot. */
export function listingOfFolder(root) {
  const records = new Map();
  const inodes = new Map();
  const visit = (folder, path) => {
    const stat = lstatSync(folder, { bigint: true });
    const type = KINDS.find(([, is]) => is(stat))?.[0] ?? 'other';
    inodes.set(path, String(stat.ino));
    records.set(path, {
      type,
      mode: modeOf(type, Number(stat.mode & 0o7777n)),
      owner: `${stat.uid}:${stat.gid}`,
      seconds: Number(floorDivide(stat.mtimeNs, 1_000_000_000n)),
      size: type === 'reg' ? Number(stat.size) : 0,
      sha256: type === 'reg' ? sha256(readFileSync(folder)) : '',
      target: type === 'symlink' ? decodeBytes(readlinkSync(folder, { encoding: 'buffer' })) : '',
      device: deviceOf(
        type,
        (stat.rdev >> 8n) & 0xfffn,
        (stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n),
      ),
    });
    if (type !== 'dir') return;
    for (const name of readdirSync(folder, { encoding: 'buffer' })) {
      const below = decodeBytes(name);
      visit(Buffer.concat([folder, Buffer.from('/'), name]), path === '' ? below : `${path}/${below}`);
    }
  };
  visit(Buffer.from(root), '');
  return withNames(records, (path) => inodes.get(path));
}

function floorDivide(a, b) {
  return a >= 0n || a % b === 0n ? a / b : a / b - 1n;
}

/**
 * Lines that say how two listings differ, path by path; none when they agree.
 *
 * @param ignores which field of which path is not compared
 */
export function differences(found, wanted, fields, ignores = () => false) {
  const lines = [];
  for (const path of [...new Set([...found.keys(), ...wanted.keys()])].sort()) {
    const [ours, theirs] = [found.get(path), wanted.get(path)];
    const shown = JSON.stringify(`/${path}`);
    if (ours === undefined) lines.push(`- ${shown} is missing: ${theirs.type} of ${theirs.size} bytes`);
    else if (theirs === undefined) lines.push(`+ ${shown} should not be there: ${ours.type}`);
    else {
      for (const field of fields) {
        if (ours[field] === theirs[field] || ignores(path, field)) continue;
        lines.push(`! ${shown} ${field}: ${ours[field]}, should be ${theirs[field]}`);
      }
    }
  }
  return lines;
}
