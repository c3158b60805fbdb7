import type { EntryOptions } from '../tar/tar-builder.js';

/** What the model says about one path. */
export interface ModelNode {
  /** Whose contents and attributes it has: of a hardlink, those of what it leads to in the end. */
  readonly entry: EntryOptions;
  /** Layer that has the path. */
  readonly layer: number;
  /** The same for all names of one file: layer and path of the entry that made it. */
  readonly file: string;
}

type Stack = readonly (readonly EntryOptions[])[];

function pathOf(entry: EntryOptions): string {
  return entry.name.replace(/\/$/, '');
}

function entryAt(stack: Stack, layer: number, path: string): EntryOptions | undefined {
  return stack[layer]!.find((entry) => pathOf(entry) === path);
}

/** Each folder on the way to a path, and the path itself: `a`, `a/b`, `a/b/c`. */
function prefixes(path: string): string[] {
  const parts = path.split('/');
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}

function inFolder(folder: string, name: string): string {
  return folder === '' ? name : `${folder}/${name}`;
}

/** Whether a layer hides what lower layers have at a path: word for word the layer specification. */
function hides(stack: Stack, layer: number, path: string): boolean {
  return ['', ...prefixes(path)].some((prefix) => {
    if (prefix !== '') {
      const slash = prefix.lastIndexOf('/');
      const whiteout = inFolder(prefix.slice(0, Math.max(0, slash)), `.wh.${prefix.slice(slash + 1)}`);
      if (entryAt(stack, layer, whiteout) !== undefined) return true;
      // A file in the place of a folder hides all that was in it.
      const there = entryAt(stack, layer, prefix);
      if (there !== undefined && !there.name.endsWith('/') && nodeOf(stack, layer, there) !== undefined)
        return true;
    }
    return prefix !== path && entryAt(stack, layer, inFolder(prefix, '.wh..wh..opq')) !== undefined;
  });
}

/**
 * What an entry of a layer makes. A hardlink is another name of its target: an entry of the same layer, else what the
 * layers below have there and this one does not hide. Undefined when there is no such file.
 */
function nodeOf(
  stack: Stack,
  layer: number,
  entry: EntryOptions,
  chain: readonly EntryOptions[] = [],
): ModelNode | undefined {
  if (entry.type !== '1') return { entry, layer, file: `${layer} ${pathOf(entry)}` };
  const target = entry.linkname ?? '';
  if (chain.includes(entry)) return undefined;
  const same = entryAt(stack, layer, target);
  let found: ModelNode | undefined;
  if (same !== undefined) found = nodeOf(stack, layer, same, [...chain, entry]);
  else if (!hides(stack, layer, target)) found = literalMerge(stack.slice(0, layer)).get(target);
  return found === undefined || found.entry.name.endsWith('/') ? undefined : { ...found, layer };
}

/**
 * The merged view, literally and slowly: for each path that any layer names, the topmost layer that has it,
 * unless a layer above hides it. No tree is built and nothing is applied.
 */
export function literalMerge(stack: Stack): Map<string, ModelNode> {
  const paths = new Set(stack.flat().map(pathOf));
  const found = new Map<string, ModelNode>();
  for (const path of [...paths].filter((each) => !each.includes('.wh.'))) {
    for (let layer = stack.length - 1; layer >= 0; layer--) {
      const entry = entryAt(stack, layer, path);
      const node = entry === undefined ? undefined : nodeOf(stack, layer, entry);
      if (node !== undefined) {
        found.set(path, node);
        break;
      }
      if (hides(stack, layer, path)) break;
    }
  }
  return found;
}
