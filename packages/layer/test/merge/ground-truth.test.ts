import { expect } from 'chai';
import fc from 'fast-check';
import type { Inode } from '../../src/merge/tree.js';
import type { EntryOptions } from '../tar/tar-builder.js';
import { literalMerge } from './literal-model.js';
import { merge } from './layer-stacks.js';
import { STACK } from './stack-generator.js';

type Stack = readonly (readonly EntryOptions[])[];

/**
 * Leaves out hardlinks to what lies below a link: the model follows none, and whether a link is made before what it
 * hides is linked to is for no specification to say.
 */
function withClearHardlinks(stack: Stack): Stack {
  const links = stack.flat().filter(({ type }) => type === '1' || type === '2');
  const isClear = ({ type, linkname = '' }: EntryOptions): boolean =>
    type !== '1' || !links.some((link) => linkname.startsWith(`${link.name}/`));
  return stack.map((layer) => layer.filter(isClear));
}

const TYPES: Readonly<Record<string, string>> = { '2': 'symlink', '6': 'fifo', '5': 'dir' };

function modelOf(stack: Stack): unknown {
  const model = literalMerge(stack);
  const names = new Map<string, string[]>();
  for (const [path, { file }] of model) names.set(file, [...(names.get(file) ?? []), path].sort());
  return [...model]
    .map(([path, { entry, layer, file }]) => ({
      path,
      layer,
      type: entry.name.endsWith('/') ? 'dir' : (TYPES[entry.type ?? ''] ?? 'reg'),
      mode: entry.mode ?? 0o755,
      uid: entry.uid ?? 0,
      mtime: entry.mtime,
      target: entry.linkname ?? '',
      size: entry.data?.length === undefined ? 0 : Buffer.from(entry.data as string).length,
      names: names.get(file),
    }))
    .sort(byPath);
}

function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  return a.path < b.path ? -1 : 1;
}

function viewOf(stack: Stack): unknown {
  const nodes = [...merge(...stack).nodes()].slice(1);
  const names = new Map<Inode, string[]>();
  for (const { path, inode } of nodes) names.set(inode, [...(names.get(inode) ?? []), path].sort());
  return nodes
    .map(({ path, layer, inode }) => ({
      path,
      layer,
      type: inode.type,
      mode: inode.mode,
      uid: inode.uid,
      mtime: inode.mtime.seconds,
      target: inode.target,
      size: inode.size,
      names: names.get(inode),
    }))
    .sort(byPath);
}

describe('the merged view of random layers', () => {
  it('is what a literal reading of the specification says', () => {
    fc.assert(
      fc.property(STACK.map(withClearHardlinks), (stack) => {
        expect(viewOf(stack)).to.deep.equal(modelOf(stack));
      }),
      { numRuns: 300 },
    );
  });

  it('does not depend on the order of entries in a layer', () => {
    const permuted = STACK.chain((stack) =>
      fc.tuple(
        fc.constant(stack),
        fc.tuple(...stack.map((layer) => fc.shuffledSubarray([...layer], { minLength: layer.length }))),
      ),
    );
    const comparable = (stack: Stack): unknown =>
      [...merge(...stack).nodes()].map(({ path, layer, inode, nlink }) => {
        const { content, ...rest } = inode;
        return { path, layer, nlink, ...rest, from: content?.layer };
      });
    fc.assert(
      fc.property(permuted, ([stack, other]) => {
        expect(comparable(other)).to.deep.equal(comparable(stack));
      }),
      { numRuns: 300 },
    );
  });
});
