import { join } from 'node:path';
import {
  isDigest,
  isImageManifestMediaType,
  isIndexMediaType,
  isLayercacheError,
  parseImageIndex,
  parseImageManifest,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { isSystemError, storageError, type FileSystem } from './file-system.js';
import type { OciLayout } from './oci-layout.js';
import { isTempName } from './temp-files.js';

/** A file below `blobs/`. */
export interface StoredBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** When it was last read or written, to the hour. */
  readonly usedAt: Date;
}

/** Every blob that is here, with an entry or without. A file whose name is not a digest's is told to `onOther`. */
export async function* storedBlobs(
  files: FileSystem,
  dir: string,
  onOther: (path: string) => void = () => undefined,
): AsyncGenerator<StoredBlob> {
  for (const algorithm of await names(files, join(dir, 'blobs'))) {
    for (const hex of await names(files, join(dir, 'blobs', algorithm))) {
      if (isTempName(hex)) continue;
      const digest = `${algorithm}:${hex}`;
      const path = join(dir, 'blobs', algorithm, hex);
      if (!isDigest(digest)) {
        onOther(path);
        continue;
      }
      try {
        const { size, mtimeNs } = await files.stat(path);
        yield { digest, size: Number(size), usedAt: new Date(Number(mtimeNs / 1_000_000n)) };
      } catch (error) {
        if (!isSystemError(error, 'ENOENT')) throw storageError(error, `look at ${path}`);
      }
    }
  }
}

/** What manifests and indexes that are here name, at any depth. Those that cannot be read name nothing. */
export async function referencedFrom(
  layout: OciLayout,
  roots: Iterable<Descriptor>,
): Promise<Map<Digest, Descriptor>> {
  const found = new Map<Digest, Descriptor>();
  const seen = new Set<Digest>();
  const queue = [...roots];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (seen.has(next.digest)) continue;
    seen.add(next.digest);
    for (const child of await children(layout, next)) {
      if (!found.has(child.digest)) found.set(child.digest, child);
      queue.push(child);
    }
  }
  return found;
}

async function children(
  layout: OciLayout,
  { digest, mediaType }: Descriptor,
): Promise<readonly Descriptor[]> {
  const isIndex = isIndexMediaType(mediaType);
  if (!isIndex && !isImageManifestMediaType(mediaType)) return [];
  try {
    const bytes = await layout.readBytes(digest, { touch: false });
    if (isIndex) return parseImageIndex(bytes).manifests;
    const { config, layers } = parseImageManifest(bytes);
    return [config, ...layers];
  } catch (error) {
    if (isLayercacheError(error, 'NOT_FOUND', 'DOCUMENT_INVALID', 'DIGEST_MISMATCH')) return [];
    throw error;
  }
}

async function names(files: FileSystem, path: string): Promise<string[]> {
  try {
    return (await files.readdir(path)).sort();
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return [];
    throw storageError(error, `list ${path}`);
  }
}
