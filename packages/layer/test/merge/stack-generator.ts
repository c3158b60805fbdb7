import fc from 'fast-check';
import type { EntryOptions } from '../tar/tar-builder.js';

const NAME = fc.constantFrom('a', 'b', 'c', 'ü', 'x y');
const FOLDER = fc.array(NAME, { maxLength: 2 });
/** Mostly none, so that many links lead to something. */
const TARGET_FOLDER = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, FOLDER);
const ATTRIBUTES = fc.record({
  mode: fc.constantFrom(0o644, 0o755, 0o700, 0o1777, 0o4755, 0o2755),
  uid: fc.constantFrom(0, 1000),
  mtime: fc.constantFrom(1_000_000_000, 1_500_000_001),
});

/** One layer, in any order: files, folders, links, devices, whiteouts, replacements; never a symlink as parent. */
export const LAYER: fc.Arbitrary<readonly EntryOptions[]> = fc
  .array(
    fc
      .tuple(
        FOLDER,
        NAME,
        fc.constantFrom(
          'file',
          'file',
          'file',
          'dir',
          'dir',
          'symlink',
          'hardlink',
          'hardlink',
          'whiteout',
          'opaque',
          'fifo',
        ),
        ATTRIBUTES,
        fc.tuple(TARGET_FOLDER, NAME),
      )
      .map(([folder, name, kind, attributes, [targetFolder, targetName]]): EntryOptions => {
        const path = [...folder, name].join('/');
        const target = [...targetFolder, targetName].join('/');
        switch (kind) {
          case 'dir':
            return { ...attributes, name: `${path}/` };
          case 'symlink':
            return { ...attributes, name: path, type: '2', linkname: target, mode: 0o777 };
          case 'hardlink':
            return { ...attributes, name: path, type: '1', linkname: target };
          case 'whiteout':
            return { ...attributes, name: [...folder, `.wh.${name}`].join('/') };
          case 'opaque':
            return { ...attributes, name: [...folder, '.wh..wh..opq'].join('/') };
          case 'fifo':
            return { ...attributes, name: path, type: '6' };
          default:
            return { ...attributes, name: path, data: `${path} ${attributes.mtime}` };
        }
      }),
    { minLength: 3, maxLength: 14, size: 'max' },
  )
  .map(consistent);

/** Leaves out what the specification does not settle, so that there is one right answer. */
function consistent(entries: readonly EntryOptions[]): readonly EntryOptions[] {
  const kept = new Map<string, EntryOptions>();
  const path = (entry: EntryOptions): string => entry.name.replace(/\/$/, '');
  const isFolder = (entry: EntryOptions): boolean => entry.name.endsWith('/');
  for (const entry of entries) {
    const name = path(entry);
    const conflicts = [...kept].some(
      ([other, { name: otherName }]) =>
        other === name ||
        (name.startsWith(`${other}/`) && !otherName.endsWith('/')) ||
        (other.startsWith(`${name}/`) && !isFolder(entry)),
    );
    if (!conflicts) kept.set(name, entry);
  }
  return [...kept.values()];
}

/** Layers whose parents are all spelled out, so that lower layers cannot put something else there. */
export const STACK: fc.Arbitrary<readonly (readonly EntryOptions[])[]> = fc
  .array(LAYER, { minLength: 1, maxLength: 4 })
  .map((layers) => layers.map(withParents));

function withParents(entries: readonly EntryOptions[]): readonly EntryOptions[] {
  const names = new Set(entries.map((entry) => entry.name));
  const parents = new Set<string>();
  for (const { name } of entries) {
    const parts = name.replace(/\/$/, '').split('/');
    for (let length = 1; length < parts.length; length++) parents.add(`${parts.slice(0, length).join('/')}/`);
  }
  const missing = [...parents].filter((parent) => !names.has(parent)).sort();
  return [...missing.map((name): EntryOptions => ({ name, mtime: 1_234_567_890 })), ...entries];
}
