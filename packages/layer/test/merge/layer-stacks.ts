import { digestOf } from '@layercache/oci';
import type { LayerFiles } from '../../src/merge/apply-layer.js';
import { MergedView } from '../../src/merge/merged-view.js';
import { TarReader } from '../../src/tar/tar-reader.js';
import type { TarEntry } from '../../src/tar/entry.js';
import { tar, type EntryOptions } from '../tar/tar-builder.js';

export function layerOf(bytes: Uint8Array): LayerFiles {
  const entries: TarEntry[] = [];
  const reader = new TarReader((entry) => entries.push(entry));
  reader.push(bytes);
  reader.finish();
  return { diffID: digestOf(bytes), entries };
}

/** A name alone is an empty file or, with a slash at its end, a folder. */
export type Described = EntryOptions | Uint8Array | string;

export function archive(...entries: readonly Described[]): Buffer {
  return tar(...entries.map((each) => (typeof each === 'string' ? { name: each } : each)));
}

export function merge(...layers: readonly (readonly Described[])[]): MergedView {
  return MergedView.of(layers.map((entries) => layerOf(archive(...entries))));
}

/** What a reader sees first: the names, folders with a slash, links with an arrow. */
export function names(view: MergedView): string[] {
  return [...view.nodes()].slice(1).map(({ path, inode }) => {
    if (inode.type === 'dir') return `${path}/`;
    return inode.type === 'symlink' ? `${path} -> ${inode.target}` : path;
  });
}

export function notes(view: MergedView): string[] {
  return view.notes.map(({ kind, layer, name }) => `${layer} ${kind}: ${name}`);
}
