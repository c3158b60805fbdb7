// The layers that the harness checks with, bottom to top: everything that layers may do to each other, and every
// way that tars have to say it.
import { decodeBytes } from '@layercache/layer';
import { paxHeader } from '../../packages/layer/dist/test/tar/tar-builder.js';
import { device, dir, fifo, file, filler, hardlink, opaque, symlink, whiteout } from './facts.mjs';
import * as encoding from './tar-encodings.mjs';

/** A file with holes, 4 kB in all. */
const holes = (letter) =>
  Buffer.concat([Buffer.alloc(1024), Buffer.alloc(1024, letter), Buffer.alloc(1536), Buffer.from('end')]);

const LONG = `long/${'folder-with-a-name/'.repeat(8)}${'x'.repeat(120)}`;
const NOT_UTF8 = decodeBytes(Buffer.from([0x6e, 0xff, 0x6d, 0xe9]));
const BINARY = Buffer.from([0, 1, 2, 0xff, 0xfe, 0x0a, 0x3d, 0]);

export const LAYERS = [
  {
    title: 'below an opaque root',
    entries: [dir('etc/'), file('etc/from-below', 'hidden'), file('root-file', 'hidden')],
  },
  {
    title: 'opaque root, base system',
    entries: [
      opaque(''),
      dir('./', { mode: 0o750, mtime: [1_500_000_000, 0] }),
      dir('etc/'),
      file('etc/passwd', 'root:x:0:0', { uname: 'root', gname: 'root' }),
      file('etc/shadow', 'root:*', { mode: 0o640, gid: 42 }),
      dir('usr/'),
      dir('usr/bin/'),
      file('usr/bin/su', 'setuid', { mode: 0o4755 }),
      file('usr/bin/wall', 'setgid', { mode: 0o2755, gid: 5 }),
      symlink('bin', 'usr/bin'),
      dir('tmp/', { mode: 0o1777 }),
      dir('hidden/'),
      dir('hidden/a/'),
      file('hidden/a/x', 'x'),
      file('gone', 'gone'),
      dir('opaque/'),
      file('opaque/lower', 'lower'),
      dir('opaque/sub/'),
      file('opaque/sub/deep', 'deep'),
      file('both', 'old'),
      file('both-late', 'old'),
      dir('swap/'),
      file('swap/old', 'old'),
      dir('keep/'),
      file('keep/child', 'child'),
    ],
  },
  {
    title: 'hardlinks',
    entries: [
      dir('links/'),
      file('links/one', 'one file', { mode: 0o644, mtime: [1_600_000_001, 0] }),
      hardlink('links/two', 'links/one', { mtime: [1_600_000_001, 0] }),
      hardlink('links/chained', 'links/two', { mtime: [1_600_000_001, 0] }),
      symlink('links/soft', 'one'),
      hardlink('links/to-soft', 'links/soft', { mode: 0o777 }),
      hardlink('links/early', 'links/late', { unlike: 'a hardlink before its target stops it' }),
      file('links/late', 'late'),
      hardlink('links/to-lower', 'etc/passwd'),
      file('links/replaced', 'first'),
      hardlink('links/survives', 'links/replaced'),
      hardlink('links/missing', 'links/nowhere', { unlike: 'a hardlink to nothing stops it' }),
    ],
  },
  {
    title: 'whiteouts and replacements',
    packing: 'tar',
    entries: [
      whiteout('gone'),
      whiteout('hidden'),
      dir('opaque/'),
      opaque('opaque'),
      file('opaque/new', 'new'),
      whiteout('both'),
      file('both', 'new'),
      file('both-late', 'new'),
      whiteout('both-late', { unlike: 'a whiteout after the entry removes the entry too' }),
      file('swap', 'a file now'),
      dir('keep/', { mode: 0o700, uid: 7 }),
      file('links/replaced', 'second'),
      file('bin/through-symlink', 'in usr/bin'),
    ],
  },
  {
    title: 'names and duplicates',
    packing: 'members',
    entries: [
      whiteout('swap'),
      dir('swap/'),
      file('swap/new', 'new'),
      file('twice', 'first'),
      file('twice', 'second', { mode: 0o600 }),
      dir('twice-dir/', { mode: 0o700 }),
      dir('twice-dir/', { mode: 0o711 }),
      file('implied/parents/file', 'deep'),
      file('./dot', 'dot'),
      dir('slashes///'),
      file('slashes//file', 'slashes'),
      file('/absolute', 'absolute'),
      file('tmp/../cleaned', 'cleaned'),
      file('../escape', 'escape', { unlike: 'names that leave the root are put into it' }),
      file('', 'nameless', { unlike: 'an entry without a name stops it' }),
      symlink('outside', '../../somewhere'),
      file('outside/planted', 'planted', { unlike: 'names that leave the root are put into it' }),
      symlink('absolute-link', '/keep'),
      file('absolute-link/inside', 'in keep'),
      file('ünï côdé \t\n"\\', 'odd'),
      file(NOT_UTF8, 'bytes'),
    ],
  },
  {
    title: 'attributes and encodings',
    packing: 'zstd',
    entries: [
      fifo('fifo', { mode: 0o622 }),
      device('char', 'null', 1, 3),
      device('block', 'disk', 8, 300),
      file('time/sub-second', '', { mtime: [1_600_000_000, 123_456_789] }),
      file('time/negative', '', { mtime: [-86_400, 0] }),
      file('time/negative-sub-second', '', { mtime: [-3, 250_000_000] }),
      file('owner', '', { uid: 3_000_000_000, gid: 4_000_000_000 }),
      file('owner-base-256', 'base 256', { uid: 1000, gid: 70_000, as: encoding.base256 }),
      file('time/negative-base-256', '', { mtime: [-1_000_000, 0], as: encoding.base256 }),
      file(LONG, 'pax'),
      file(`gnu-${LONG}`, 'gnu', { as: encoding.gnuLongNames }),
      symlink(`gnu-link-${LONG}`, `/${LONG}`, { as: encoding.gnuLongNames }),
      file('sparse/gnu', holes('a'), {
        as: encoding.sparseOldGnu,
        unlike: 'sparse files of GNU tar are refused',
      }),
      file('sparse/pax-0.1', holes('b'), { as: encoding.sparsePax01 }),
      file('sparse/pax-1.0', holes('c'), { as: encoding.sparsePax10 }),
      file('xattrs', 'xattrs', { xattrs: { 'user.binary': BINARY, 'user.text': Buffer.from('text') } }),
      dir('version-7/', { as: encoding.version7 }),
      // What a global header says holds for nothing: so read Go, and with it every container runtime.
      {
        bytes: paxHeader({ 'SCHILY.xattr.user.global': 'all' }, 'g'),
        unlike: 'pax global headers are refused',
      },
      file('global', '', { unlike: 'pax global headers are refused' }),
      file('local', '', {
        xattrs: { 'user.global': Buffer.from('mine') },
        unlike: 'pax global headers are refused',
      }),
    ],
  },
  {
    title: 'AUFS leftovers',
    entries: [
      file('.wh..wh.aufs', '', { unlike: 'AUFS leftovers are unpacked' }),
      dir('.wh..wh.orph/', { unlike: 'AUFS leftovers are unpacked' }),
      dir('.wh..wh.plnk/', { unlike: 'AUFS leftovers are unpacked' }),
      file('.wh..wh.plnk/12.34', 'linked', { unlike: 'AUFS leftovers are unpacked' }),
      hardlink('aufs-link', '.wh..wh.plnk/12.34', { unlike: 'AUFS leftovers are unpacked' }),
      file('aufs-file', 'kept'),
    ],
  },
  { title: 'empty', entries: [] },
  {
    title: 'many bytes',
    packing: 'members',
    entries: Array.from({ length: 60 }, (_, index) =>
      file(`bulk/${index}`, filler(index % 10 === 0 ? 400_000 : 5_000 + index * 701, index + 1)),
    ),
  },
  { title: 'empty again', entries: [] },
];
