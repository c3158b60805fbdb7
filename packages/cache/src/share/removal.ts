import { refName, type Descriptor } from '@layercache/oci';
import type { Selected } from './selection.js';
import type { SharedLists } from './shared-state.js';

/** What a pruning push takes out of the cache in a registry. */
export interface Removal {
  readonly entries: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** What the remote lists and is not pushed. An image that goes by another name there is one, too. */
export function findRemoval(remote: SharedLists, selected: Selected): Removal {
  const entries = new Set(selected.entries.map((entry) => entry.descriptor.digest));
  const images = new Set(selected.images.map(imageKey));
  return {
    entries: remote.entries.filter((entry) => !entries.has(entry.digest)),
    images: remote.images.filter((image) => !images.has(imageKey(image))),
  };
}

export function withoutRemoved(remote: SharedLists, removal: Removal): SharedLists {
  const entries = new Set(removal.entries.map((entry) => entry.digest));
  const images = new Set(removal.images.map(imageKey));
  return {
    entries: remote.entries.filter((entry) => !entries.has(entry.digest)),
    images: remote.images.filter((image) => !images.has(imageKey(image))),
  };
}

function imageKey(image: Descriptor): string {
  return `${image.digest} ${refName(image) ?? ''}`;
}
