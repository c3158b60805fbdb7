import { expect } from 'chai';
import { digestOf, isLayercacheError } from '@layercache/oci';
import type { LayerFiles } from '../../src/merge/apply-layer.js';
import { MergedView } from '../../src/merge/merged-view.js';
import type { EntryType, TarEntry } from '../../src/tar/entry.js';
import { merge, names } from './layer-stacks.js';

type Few = Pick<TarEntry, 'name'> & Partial<TarEntry>;

function entry(few: Few): TarEntry {
  return {
    type: 'reg',
    linkname: '',
    offset: 512,
    size: 0,
    sparse: undefined,
    mode: 0o644,
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
    mtime: { seconds: 0, nanoseconds: 0 },
    devmajor: 0,
    devminor: 0,
    pax: new Map(),
    ...few,
  };
}

function layer(entries: readonly Few[]): LayerFiles {
  return { diffID: digestOf(''), entries: entries.map(entry) };
}

function many(count: number, make: (index: number) => Few): Few[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

function link(type: Extract<EntryType, 'symlink' | 'hardlink'>, name: string, linkname: string): Few {
  return { name, type, linkname };
}

/** Symlinks of which each leads to the one before by as long a way as a target can be. */
function longChain(length: number): Few[] {
  const targets = ['d', ...many(length, (index) => ({ name: `s${index}` })).map(({ name }) => name)];
  return [
    { name: 'd', type: 'dir' },
    ...many(length, (index) => link('symlink', `s${index}`, `${'./d/../'.repeat(580)}${targets[index]!}`)),
  ];
}

function countOf(view: MergedView): number {
  return [...view.nodes()].length - 1;
}

/*
 * Each of these takes hours, or all memory, when an entry costs what the whole layer does. Nothing is said of times:
 * the suite's own limit fails them.
 */
describe('the work of a merge', () => {
  it('follows a chain of symlinks once for all files behind it', async () => {
    const files = many(10_000, (index) => ({ name: `s38/f${index}` }));
    const view = await MergedView.merge([layer([...longChain(39), ...files])]);
    expect(view.find('d/f9999')!.inode.type).to.equal('reg');
    expect(countOf(view)).to.equal(10_040);
  });

  it('follows it once for each symlink that leads into it', async () => {
    const doors = many(20_000, (index) => link('symlink', `p${index}`, 's37'));
    const files = many(20_000, (index) => ({ name: `p${index}/f${index}` }));
    const view = await MergedView.merge([layer([...longChain(38), ...doors, ...files])]);
    expect(view.find('d/f19999')!.inode.type).to.equal('reg');
  });

  it('refuses files behind too many symlinks as quickly', async () => {
    const files = many(10_000, (index) => ({ name: `s49/f${index}` }));
    const view = await MergedView.merge([layer([...longChain(50), ...files])]);
    expect(countOf(view)).to.equal(51);
    expect(view.notes.filter(({ kind }) => kind === 'symlink refused').length).to.be.greaterThan(1000);
  });

  it('follows a symlink anew when something on its way is replaced', () => {
    const lower = [
      'a/x/',
      'b/x/',
      { name: 'way', type: '2', linkname: 'a' },
      { name: 'door', type: '2', linkname: 'way/x' },
      'door/1',
    ];
    const upper = ['.wh.way', { name: 'way', type: '2', linkname: 'b' }, 'door/2'];
    expect(names(merge(lower, upper))).to.include.members(['a/x/1', 'b/x/2']);
  });

  it('gives up when symlinks are replaced and followed in turn, over and over', async () => {
    // A whiteout of a symlink behind the chain, each of which makes all that is known of symlinks uncertain.
    const doors = many(20_000, (index) => link('symlink', `d/x${index}`, 'nowhere'));
    const whiteouts = many(20_000, (index) => ({ name: `s38/.wh.x${index}` }));
    const error: unknown = await MergedView.merge([
      layer([...longChain(39), ...doors]),
      layer(whiteouts),
    ]).catch((each: unknown) => each);
    expect(isLayercacheError(error, 'ARCHIVE_INVALID')).to.equal(true);
    expect((error as Error).message).to.match(/symlinks of the image take more than 20000000 steps/);
  });

  it('looks at each step of a whiteout once, however deep it stands', async () => {
    const deep = 'a/'.repeat(2000);
    const whiteouts = many(2000, (index) => ({ name: `${deep}.wh.${index}` }));
    const folder: Few = { name: deep, type: 'dir' };
    const view = await MergedView.merge([
      layer([folder, ...many(2000, (index) => ({ name: `${deep}${index}` }))]),
      layer([folder, ...whiteouts]),
    ]);
    expect(countOf(view)).to.equal(2000);
  });

  it('makes each hardlink of a chain once, whichever end it is seen from', async () => {
    const count = 10_000;
    for (const first of [
      { name: 'l0' },
      link('hardlink', 'l0', 'nothing'),
      link('hardlink', 'l0', `l${count}`),
    ]) {
      const links = many(count, (index) => link('hardlink', `l${index + 1}`, `l${index}`));
      for (const entries of [
        [first, ...links],
        [...links.toReversed(), first],
      ]) {
        const view = await MergedView.merge([layer(entries)]);
        expect(countOf(view)).to.equal(first.type === undefined ? count + 1 : 0);
        if (first.type === undefined) expect(view.find('l0')!.nlink).to.equal(count + 1);
      }
    }
  });

  it('sorts a folder of 20,000 names, and empties it', async () => {
    const files = layer(many(20_000, (index) => ({ name: `dir/ü-${(index * 7919) % 20_000}` })));
    expect(countOf(await MergedView.merge([files]))).to.equal(20_001);
    for (const whiteouts of [
      [{ name: 'dir/.wh..wh..opq' }],
      many(20_000, (index) => ({ name: `dir/.wh.ü-${index}` })),
    ])
      expect(countOf(await MergedView.merge([files, layer(whiteouts)]))).to.equal(1);
  });

  it('counts notes that it has no room for', async () => {
    const view = await MergedView.merge([layer(many(30_000, (index) => ({ name: `${index}/f` })))]);
    expect(view.notes).to.have.length(10_000);
    expect(view.omittedNotes).to.equal(20_000);
  });

  it('refuses paths that symlinks make longer than any, in folders or in characters', async () => {
    const deeper = (name: string): LayerFiles[] => [
      layer([{ name, type: 'dir' }]),
      ...many(8, (index) => link('symlink', `s${index}`, index === 0 ? name : `s${index - 1}/${name}`)).map(
        (each, index) => layer([each, { name: `s${index}/${name}`, type: 'dir' }]),
      ),
    ];
    for (const name of ['a/'.repeat(1999) + 'a', `${'n'.repeat(30_000)}/n`]) {
      const error: unknown = await MergedView.merge(deeper(name)).catch((each: unknown) => each);
      expect(isLayercacheError(error, 'ARCHIVE_INVALID'), String(error)).to.equal(true);
    }
  });

  it('is done in turns, and can be interrupted', async () => {
    const layers = [layer(many(300_000, (index) => ({ name: `${index}/f` })))];
    const controller = new AbortController();
    setImmediate(() => {
      controller.abort();
    });
    const error: unknown = await MergedView.merge(layers, { signal: controller.signal }).catch(
      (each: unknown) => each,
    );
    expect(isLayercacheError(error, 'ABORTED'), String(error)).to.equal(true);
  });

  it('gives the same view in turns as in one go', async () => {
    const layers = [
      layer([...longChain(3), { name: 's2/x' }]),
      layer([{ name: 'd/.wh.x' }, { name: 'y/z' }]),
    ];
    const [inTurns, atOnce] = [await MergedView.merge(layers), MergedView.of(layers)];
    expect([...inTurns.nodes()]).to.deep.equal([...atOnce.nodes()]);
    expect(inTurns.notes).to.deep.equal(atOnce.notes);
  });
});
