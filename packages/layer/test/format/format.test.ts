import { expect } from 'chai';
import { formatJson } from '../../src/format/json.js';
import { formatMtree } from '../../src/format/mtree.js';
import { formatMode, formatText } from '../../src/format/text.js';
import { decodeBytes } from '../../src/tar/byte-string.js';
import { merge } from '../merge/layer-stacks.js';

const view = merge([
  { name: './', mtime: 0 },
  { name: 'a b/', mode: 0o1777, mtime: 0 },
  { name: 'a b/f', data: 'hello', uid: 7, gid: 8, uname: 'me', mode: 0o4755, pax: { mtime: '-1.5' } },
  { name: 'hard', type: '1', linkname: 'a b/f' },
  { name: 'l', type: '2', linkname: 'x\ny', mode: 0o777, mtime: 1 },
  {
    name: 'n',
    type: '3',
    devmajor: 1,
    devminor: 3,
    mtime: 1,
    pax: { 'SCHILY.xattr.user.b': Buffer.from([0, 255]) },
  },
  { name: decodeBytes(Buffer.from([0xff, 0x0a])), mtime: 2 ** 44, mode: 0o600 },
]);

describe('a merged view', () => {
  it('is printed as text, one line for each name', () => {
    expect([...formatText(view)].join('')).to.equal(
      [
        'drwxr-xr-x   3 0:0                0 1970-01-01T00:00:00Z /',
        'drwxrwxrwt   2 0:0                0 1970-01-01T00:00:00Z /a b',
        '-rwsr-xr-x   2 7:8                5 1969-12-31T23:59:58.5Z /a b/f',
        '-rwsr-xr-x   2 7:8                5 1969-12-31T23:59:58.5Z /hard',
        'lrwxrwxrwx   1 0:0                0 1970-01-01T00:00:01Z /l -> x\\x0ay',
        'crw-r--r--   1 0:0              1,3 1970-01-01T00:00:01Z /n',
        '-rw-------   1 0:0                0 17592186044416.000000000 /\\xff\\x0a',
        '',
      ].join('\n'),
    );
  });

  it('is printed as mtree', () => {
    expect([...formatMtree(view)].join('')).to.equal(
      [
        '#mtree v2.0',
        '. type=dir mode=0755 uid=0 gid=0 nlink=3 time=0.000000000',
        './a\\040b type=dir mode=1777 uid=0 gid=0 nlink=2 time=0.000000000',
        './a\\040b/f type=file mode=4755 uid=7 gid=8 nlink=2 time=-1.500000000 size=5',
        './hard type=file mode=4755 uid=7 gid=8 nlink=2 time=-1.500000000 size=5',
        './l type=link mode=0777 uid=0 gid=0 nlink=1 time=1.000000000 link=x\\012y',
        './n type=char mode=0644 uid=0 gid=0 nlink=1 time=1.000000000 device=linux,1,3',
        './\\377\\012 type=file mode=0600 uid=0 gid=0 nlink=1 time=17592186044416.000000000 size=0',
        '',
      ].join('\n'),
    );
  });

  it('is printed as JSON that loses nothing', () => {
    const nodes = JSON.parse([...formatJson(view)].join('')) as Record<string, unknown>[];
    expect(nodes.map((node) => node.path)).to.deep.equal([
      '/',
      '/a b',
      '/a b/f',
      '/hard',
      '/l',
      '/n',
      '/\udcff\n',
    ]);
    expect(nodes[2]).to.deep.include({ mode: '4755', uname: 'me', mtime: '-1.500000000', size: 5, nlink: 2 });
    expect(nodes[2]!.content).to.deep.include({ size: 5, isSparse: false });
    expect(nodes[3]).to.deep.include({ hardlinkOf: '/a b/f' });
    expect(nodes[4]).to.deep.include({ target: 'x\ny' });
    expect(nodes[5]).to.deep.include({ device: [1, 3], xattrs: { 'user.b': 'AP8=' } });
  });

  it('shows special bits as ls does', () => {
    expect(formatMode('reg', 0o7000)).to.equal('---S--S--T');
    expect(formatMode('dir', 0o7777)).to.equal('drwsrwsrwt');
  });
});
