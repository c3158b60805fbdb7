import { expect } from 'chai';
import { decodeBytes, encodeBytes } from '../../src/tar/byte-string.js';
import { MergedView } from '../../src/merge/merged-view.js';
import { archive, layerOf, merge, names, notes } from './layer-stacks.js';

describe('the merged view', () => {
  describe('of whiteouts', () => {
    it('hides what lower layers have, wherever the whiteout stands in its tar', () => {
      expect(names(merge(['a/', 'a/x', 'a/y'], ['a/.wh.x', 'a/z']))).to.deep.equal(['a/', 'a/y', 'a/z']);
      expect(names(merge(['a/', 'a/x', 'a/y'], ['a/z', 'a/.wh.x']))).to.deep.equal(['a/', 'a/y', 'a/z']);
    });

    it('hides whole folders', () => {
      expect(names(merge(['a/', 'a/b/', 'a/b/c', 'd'], ['.wh.a']))).to.deep.equal(['d']);
    });

    it('keeps what its own layer makes at the same name, and says so', () => {
      for (const layer of [
        ['.wh.a', 'a/', 'a/new'],
        ['a/new', 'a/', '.wh.a'],
      ]) {
        const view = merge(['a/', 'a/old'], layer);
        expect(names(view)).to.deep.equal(['a/', 'a/new']);
        expect(notes(view)).to.deep.equal(['1 whiteout and entry: .wh.a']);
      }
    });

    it('does nothing where there is nothing', () => {
      expect(names(merge(['a'], ['.wh.b']))).to.deep.equal(['a']);
    });

    it('empties opaque folders of what lower layers put there, and of nothing else', () => {
      for (const layer of [
        ['a/', 'a/.wh..wh..opq', 'a/new'],
        ['a/new', 'a/.wh..wh..opq', 'a/'],
      ]) {
        expect(names(merge(['a/', 'a/old', 'a/sub/', 'a/sub/x'], layer))).to.deep.equal(['a/', 'a/new']);
      }
    });

    it('lets the root be opaque', () => {
      expect(names(merge(['a', 'b/', 'b/c'], ['.wh..wh..opq', 'd']))).to.deep.equal(['d']);
    });

    it('concerns a new folder only, not what a symlink in its place led to', () => {
      const lower = ['c/', 'c/x', { name: 'b', type: '2', linkname: 'c' }];
      for (const upper of [
        ['b/', 'b/.wh..wh..opq', 'b/.wh.x'],
        ['b/.wh..wh..opq', 'b/.wh.x', 'b/'],
      ]) {
        expect(names(merge(lower, upper))).to.deep.equal(['b/', 'c/', 'c/x']);
      }
    });

    it('refuses whiteouts of no name, and whiteouts that are folders', () => {
      const view = merge(['a'], ['.wh.', '.wh..', '.wh...', '.wh.b/c']);
      expect(names(view)).to.deep.equal(['a']);
      expect(view.notes.map((note) => note.kind)).to.deep.equal(
        Array.from({ length: 4 }, () => 'whiteout refused'),
      );
    });

    it("leaves AUFS's own files out, but resolves the hardlinks that lead to them", () => {
      const view = merge([
        '.wh..wh.aufs',
        '.wh..wh.orph/',
        { name: '.wh..wh.plnk/1.2', data: 'shared' },
        { name: 'a', type: '1', linkname: '.wh..wh.plnk/1.2' },
      ]);
      expect(names(view)).to.deep.equal(['a']);
      expect(view.find('a')!.inode.size).to.equal(6);
    });
  });

  describe('of replacements', () => {
    it('turns folders into files and back', () => {
      expect(names(merge(['a/', 'a/b'], ['a']))).to.deep.equal(['a']);
      expect(names(merge(['a'], ['a/', 'a/b']))).to.deep.equal(['a/', 'a/b']);
      expect(names(merge(['a/', 'a/b'], ['a'], ['a/', 'a/c']))).to.deep.equal(['a/', 'a/c']);
    });

    it('keeps the children of a folder that comes again, with its new attributes', () => {
      const view = merge(
        ['a/', 'a/b'],
        [{ name: 'a/', mode: 0o1777, uid: 5, pax: { 'SCHILY.xattr.user.x': 'y' } }],
      );
      expect(names(view)).to.deep.equal(['a/', 'a/b']);
      expect(view.find('a')!.inode).to.deep.include({
        mode: 0o1777,
        uid: 5,
        xattrs: new Map([['user.x', 'y']]),
      });
    });

    it('puts a folder in the place of a symlink to one', () => {
      const view = merge(
        ['usr/', 'usr/lib/', { name: 'lib', type: '2', linkname: 'usr/lib' }],
        ['lib/', 'lib/x'],
      );
      expect(names(view)).to.deep.equal(['lib/', 'lib/x', 'usr/', 'usr/lib/']);
    });

    it('takes the last of entries with one name, and says so', () => {
      const view = merge([
        { name: 'a', data: '1' },
        { name: './a', data: '22' },
      ]);
      expect(view.find('a')!.inode.size).to.equal(2);
      expect(notes(view)).to.deep.equal(['0 duplicate: ./a']);
    });
  });

  describe('of paths', () => {
    it('makes the folders that no entry makes', () => {
      const time = { seconds: 77, nanoseconds: 5 };
      const view = MergedView.of([layerOf(archive('a/b/c'))], { time });
      expect(names(view)).to.deep.equal(['a/', 'a/b/', 'a/b/c']);
      expect(view.find('a/b')!.inode).to.deep.include({ mode: 0o755, uid: 0, mtime: time });
      expect(view.find('')!.inode.mtime).to.deep.equal(time);
      expect(notes(view)).to.deep.equal(['0 parent implied: a', '0 parent implied: a/b']);
    });

    it('does not call a folder implied whose entry comes later', () => {
      const view = merge(['a/b', 'a/', 'c/.wh.x', 'c/']);
      expect(view.notes).to.deep.equal([]);
    });

    it('gives the root the attributes of its entry', () => {
      const view = merge([{ name: './', mode: 0o700, uid: 9, mtime: 5 }]);
      expect(view.find('/')!.inode).to.deep.include({ mode: 0o700, uid: 9 });
      expect(notes(merge([{ name: './', type: '2', linkname: '/etc' }]))).to.deep.equal([
        '0 name refused: ./',
      ]);
    });

    it('cleans names that stay inside, and refuses those that do not', () => {
      const view = merge(['./a/', '/b', 'a/../c', 'a//d', '../e', 'a/../../f', '']);
      expect(names(view)).to.deep.equal(['a/', 'a/d', 'b', 'c']);
      expect(notes(view)).to.deep.equal([
        '0 name cleaned: /b',
        '0 name cleaned: a/../c',
        '0 name refused: ../e',
        '0 name refused: a/../../f',
        '0 name refused: ',
      ]);
    });

    it('follows symlinks to folders inside the root, as unpacking does', () => {
      const lower = ['usr/', 'usr/lib/', 'usr/lib/old', { name: 'lib', type: '2', linkname: '/usr/lib' }];
      const view = merge(lower, ['lib/new', 'lib/.wh.old']);
      expect(names(view)).to.deep.equal(['lib -> /usr/lib', 'usr/', 'usr/lib/', 'usr/lib/new']);
      expect(notes(view)).to.deep.equal(['1 through symlink: lib/new', '1 through symlink: lib/.wh.old']);
    });

    it('follows no symlink out of the root, and no loop', () => {
      const view = merge(
        [
          { name: 'out', type: '2', linkname: '../../etc' },
          { name: 'loop', type: '2', linkname: 'loop' },
          { name: 'x', type: '2', linkname: 'y' },
          { name: 'y', type: '2', linkname: 'x' },
        ],
        ['out/passwd', 'loop/a', 'x/b', 'y/.wh.c'],
      );
      expect(names(view)).to.deep.equal(['loop -> loop', 'out -> ../../etc', 'x -> y', 'y -> x']);
      expect(new Set(view.notes.map((note) => note.kind))).to.deep.equal(new Set(['symlink refused']));
    });

    it('makes a folder of what something else stands on', () => {
      const view = merge(['a'], ['a/b']);
      expect(names(view)).to.deep.equal(['a/', 'a/b']);
      expect(notes(view)).to.deep.equal(['1 parent replaced: a']);
    });

    it('sorts by bytes, a folder before what is in it', () => {
      expect(names(merge(['b', 'a/', 'a!', 'a/x', '\u{10000}', '\uffee']))).to.deep.equal([
        'a/',
        'a/x',
        'a!',
        'b',
        '\uffee',
        '\u{10000}',
      ]);
    });

    it('keeps names that are not UTF-8', () => {
      const name = decodeBytes(Buffer.from([0xff, 0x41]));
      expect(encodeBytes(names(merge([name]))[0]!)).to.deep.equal(Buffer.from([0xff, 0x41]));
    });

    it('refuses paths that are too deep', () => {
      expect(() => merge([{ name: 'x', pax: { path: 'a/'.repeat(2049) } }])).to.throw(/2049 folders/);
    });
  });

  describe('of hardlinks', () => {
    const file = { name: 'a', data: 'abc', uid: 4 };
    const link = (
      name: string,
      linkname: string,
    ): { name: string; type: string; linkname: string; uid: number } => ({
      name,
      type: '1',
      linkname,
      uid: 4,
    });

    it('shares one file between names, in a layer and with lower layers', () => {
      const view = merge([file, link('b', 'a')], [link('d/c', './b')]);
      expect(view.find('a')!.inode).to.equal(view.find('d/c')!.inode);
      expect(view.find('b')!.nlink).to.equal(3);
      expect(view.find('b')!.inode.content!.layer).to.equal(0);
    });

    it('resolves chains and targets that come later, and says so', () => {
      const view = merge([link('c', 'b'), link('b', 'a'), file]);
      expect(view.find('c')!.nlink).to.equal(3);
      expect(notes(view)).to.include.members(['0 hardlink forward: c', '0 hardlink forward: b']);
    });

    it('links symlinks themselves', () => {
      const view = merge([
        { name: 's', type: '2', linkname: 'nowhere' },
        { ...link('t', 's'), uid: 0 },
      ]);
      expect(names(view)).to.deep.equal(['s -> nowhere', 't -> nowhere']);
      expect(view.notes).to.deep.equal([]);
    });

    it('leaves out links to nothing, to folders, to themselves, in circles and out of the root', () => {
      const view = merge([
        'dir/',
        link('1', 'none'),
        link('2', 'dir'),
        link('3', '3'),
        link('4', '5'),
        link('5', '4'),
        link('6', '../../etc/passwd'),
        link('7', './'),
      ]);
      expect(names(view)).to.deep.equal(['dir/']);
      expect(notes(view)).to.include.members([
        '0 hardlink missing: 1',
        '0 hardlink refused: 2',
        '0 hardlink refused: 3',
        '0 hardlink refused: 6',
        '0 hardlink refused: 7',
      ]);
    });

    it('keeps the old file for a name whose other name is replaced', () => {
      const view = merge([file, link('b', 'a')], [{ name: 'a', data: 'other' }]);
      expect(view.find('b')!.inode.size).to.equal(3);
      expect(view.find('b')!.nlink).to.equal(1);
    });

    it('says when a link has other attributes than its target, whose count', () => {
      const view = merge([file, { ...link('b', 'a'), uid: 7 }]);
      expect(view.find('b')!.inode.uid).to.equal(4);
      expect(notes(view)).to.deep.equal(['0 hardlink attributes: b']);
    });
  });

  it('counts names of files and folders of folders', () => {
    const view = merge(['a/', 'a/b/', 'a/c/', 'a/d']);
    expect(view.find('a')!.nlink).to.equal(4);
    expect(view.find('a/d')!.nlink).to.equal(1);
  });

  it('finds paths through symlinks, as if the root of the image were /', () => {
    const view = merge([
      'a/',
      'a/b/',
      { name: 'a/b/f', data: 'x' },
      { name: 'l', type: '2', linkname: '/a/b' },
      { name: 'a/up', type: '2', linkname: '../l/../b/f' },
      { name: 'loop', type: '2', linkname: 'loop' },
      { name: 'dot', type: '2', linkname: 'a/b/..' },
      { name: 'self', type: '2', linkname: '.' },
    ]);
    expect(view.find('/l/f')!.path).to.equal('a/b/f');
    expect(view.find('a/up')!.path).to.equal('a/b/f');
    expect(view.find('a/up', { keepLink: true })!.inode.type).to.equal('symlink');
    expect(view.find('dot')!.path).to.equal('a');
    expect(view.find('self')!.path).to.equal('');
    for (const missing of ['loop', 'nothing', 'a/b/f/g', '../x', 'l/none'])
      expect(view.find(missing)).to.equal(undefined);
  });

  it('keeps devices, FIFOs, special bits and times', () => {
    const view = merge([
      { name: 'd', type: '3', devmajor: 5, devminor: 1, mode: 0o6755 },
      { name: 'f', type: '6', pax: { mtime: '-1.5' } },
    ]);
    expect(view.find('d')!.inode).to.deep.include({ type: 'char', devmajor: 5, devminor: 1, mode: 0o6755 });
    expect(view.find('f')!.inode.mtime).to.deep.equal({ seconds: -2, nanoseconds: 500_000_000 });
  });

  it('ends quickly on symlinks that multiply', () => {
    const links = Array.from({ length: 50 }, (_, index) => ({
      name: `l${index}`,
      type: '2',
      linkname: `l${index + 1}/`.repeat(100),
    }));
    const view = merge(links, ['l0/x']);
    expect(view.notes.at(-1)!.kind).to.equal('symlink refused');
  });
});
