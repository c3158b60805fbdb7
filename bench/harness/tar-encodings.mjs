// How one fact about a file stands in a tar: the plain way, and the ways that only some programs write.
import { entry, gnuLong } from '../../packages/layer/dist/test/tar/tar-builder.js';

const GNU = 'ustar  \0';
const TYPEFLAGS = { reg: '0', hardlink: '1', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6' };

/** The header fields of a fact. What a header has no room for goes into pax records. */
function fields(fact) {
  const [seconds, nanoseconds] = fact.mtime;
  const pax = {};
  if (nanoseconds > 0) pax.mtime = paxTime(seconds, nanoseconds);
  for (const [name, value] of Object.entries(fact.xattrs)) pax[`SCHILY.xattr.${name}`] = value;
  const { name, mode, uid, gid, uname, gname, linkname, devmajor, devminor } = fact;
  const type = TYPEFLAGS[fact.type];
  const data = fact.type === 'reg' ? fact.data : Buffer.alloc(0);
  return {
    name,
    type,
    data,
    mode,
    uid,
    gid,
    uname,
    gname,
    linkname,
    devmajor,
    devminor,
    mtime: seconds,
    pax,
  };
}

function paxTime(seconds, nanoseconds) {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const digits = String(total < 0n ? -total : total).padStart(10, '0');
  return `${total < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

export function plain(fact) {
  return entry(fields(fact));
}

/** Names in entries of their own in front, as GNU tar writes them. */
export function gnuLongNames(fact) {
  const link = fact.linkname === '' ? [] : [gnuLong('K', fact.linkname)];
  const short = { ...fields(fact), name: 'short', linkname: 'short', magic: GNU };
  return Buffer.concat([gnuLong('L', fact.name), ...link, entry(short)]);
}

/** All numbers in base 256, also those that would fit in octal. */
export function base256(fact) {
  const patch = (header) => {
    putBase256(header, fact.uid, 108, 8);
    putBase256(header, fact.gid, 116, 8);
    putBase256(header, fact.data.length, 124, 12);
    putBase256(header, fact.mtime[0], 136, 12);
  };
  return entry({ ...fields(fact), magic: GNU, patch });
}

function putBase256(header, value, at, size) {
  for (let index = at + size - 1, rest = BigInt(value); index >= at; index--, rest >>= 8n) {
    header[index] = Number(rest & 0xffn);
  }
  header[at] |= 0x80;
}

/** The stretches of a file that are not all zeros, by whole blocks. */
function segmentsOf(data) {
  const segments = [];
  for (let at = 0; at < data.length; at += 512) {
    const block = data.subarray(at, at + 512);
    if (block.every((byte) => byte === 0)) continue;
    const last = segments.at(-1);
    if (last !== undefined && last.offset + last.size === at) last.size += block.length;
    else segments.push({ offset: at, size: block.length });
  }
  return segments;
}

const stored = (data, segments) =>
  Buffer.concat(segments.map(({ offset, size }) => data.subarray(offset, offset + size)));

/** GNU's first way, with the map in the header: type S. */
export function sparseOldGnu(fact) {
  const segments = segmentsOf(fact.data);
  const patch = (header) => {
    segments.forEach(({ offset, size }, index) => {
      header.write(offset.toString(8).padStart(11, '0'), 386 + index * 24, 'latin1');
      header.write(size.toString(8).padStart(11, '0'), 398 + index * 24, 'latin1');
    });
    header.write(fact.data.length.toString(8).padStart(11, '0'), 483, 'latin1');
  };
  return entry({ ...fields(fact), type: 'S', magic: GNU, data: stored(fact.data, segments), patch });
}

/** The map in one pax record. */
export function sparsePax01(fact) {
  const segments = segmentsOf(fact.data);
  return entry({
    ...fields(fact),
    name: 'GNUSparseFile.0/file',
    data: stored(fact.data, segments),
    pax: {
      'GNU.sparse.size': String(fact.data.length),
      'GNU.sparse.numblocks': String(segments.length),
      'GNU.sparse.name': fact.name,
      'GNU.sparse.map': segments.flatMap(({ offset, size }) => [offset, size]).join(','),
    },
  });
}

/** The map in front of the data. */
export function sparsePax10(fact) {
  const segments = segmentsOf(fact.data);
  const numbers = [segments.length, ...segments.flatMap(({ offset, size }) => [offset, size])];
  const map = Buffer.from(`${numbers.join('\n')}\n`);
  return entry({
    ...fields(fact),
    name: 'GNUSparseFile.0/file',
    data: Buffer.concat([map, Buffer.alloc(-map.length & 511), stored(fact.data, segments)]),
    pax: {
      'GNU.sparse.major': '1',
      'GNU.sparse.minor': '0',
      'GNU.sparse.name': fact.name,
      'GNU.sparse.realsize': String(fact.data.length),
    },
  });
}

/** Directories as tars older than ustar have them: a file whose name ends with a slash. */
export function version7(fact) {
  return entry({ ...fields(fact), type: '\0', magic: '', uname: '', gname: '' });
}
