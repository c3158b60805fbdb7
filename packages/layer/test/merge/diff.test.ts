import { expect } from 'chai';
import { diffViews } from '../../src/merge/diff.js';
import type { MergedView } from '../../src/merge/merged-view.js';
import { merge } from './layer-stacks.js';

async function changes(before: MergedView, after: MergedView, isSame = true): Promise<string[]> {
  const found: string[] = [];
  for await (const change of diffViews(before, after, () => Promise.resolve(isSame))) {
    found.push(
      `${change.kind} ${change.path}${change.kind === 'changed' ? `: ${change.aspects.join()}` : ''}`,
    );
  }
  return found;
}

describe('the difference of two images', () => {
  it('is what was added, removed and changed, in the order of paths', async () => {
    const before = merge(['a/', 'a/x', 'a!', { name: 'b', data: '1' }, 'c/', 'c/d']);
    const after = merge(['a/', 'a/y', 'a!', { name: 'b', data: '22', mode: 0o600 }, 'c']);
    expect(await changes(before, after)).to.deep.equal([
      'removed a/x',
      'added a/y',
      'changed b: mode,size',
      'changed c: type',
      'removed c/d',
    ]);
    expect(await changes(before, before)).to.deep.equal([]);
  });

  it('asks for the content only of files of one size in different places', async () => {
    const one = merge([{ name: 'f', data: 'abc' }]);
    const other = merge(['before', { name: 'f', data: 'abd' }]);
    expect(await changes(one, other, false)).to.deep.equal(['added before', 'changed f: content']);
    expect(await changes(one, other, true)).to.deep.equal(['added before']);
    expect(await changes(one, merge([{ name: 'f', data: 'abc' }]), false)).to.deep.equal([]);
  });

  it('tells every aspect', async () => {
    const before = merge([
      { name: 'l', type: '2', linkname: 'x', uid: 1 },
      { name: 'd', type: '3', devmajor: 1 },
      { name: 'x', pax: { 'SCHILY.xattr.user.a': '1', mtime: '5.5' } },
    ]);
    const after = merge([
      { name: 'l', type: '2', linkname: 'y', uid: 2 },
      { name: 'd', type: '3', devmajor: 2 },
      { name: 'x', pax: { 'SCHILY.xattr.user.a': '2', mtime: '5.6' } },
    ]);
    expect(await changes(before, after)).to.deep.equal([
      'changed d: device',
      'changed l: owner,target',
      'changed x: time,attributes',
    ]);
  });
});
