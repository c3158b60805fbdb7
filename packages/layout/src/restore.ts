import { dirname, join } from 'node:path';
import {
  LayercacheError,
  descriptorSchema,
  digestAlgorithm,
  digestHex,
  digestOf,
  digestSchema,
  parseDocument,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { z } from 'zod';
import type { LayoutExtension } from './extension.js';
import { isSystemError, writeFully, type FileSystem } from './file-system.js';
import { emptyHead, indexText, isDeep, isWholeIndex } from './index-document.js';
import { LAYOUT_VERSION, isLayoutFile, layoutFileText } from './layout-file.js';
import { LayoutLock } from './lock.js';
import { openMapFile } from './map-file.js';
import { MapInvalid } from './map-format.js';
import { storedBlobs } from './stored-blobs.js';
import { TempFiles } from './temp-files.js';

/** Bytes of the largest document that a registry takes. */
const MAX_DERIVED = 4 * 1024 * 1024;
/** Milliseconds. Times of use are no order of writing where two documents were used so closely after each other. */
const ONE_COMMIT = 2000;

export interface RestoreOptions {
  /** ms */
  readonly lockTimeout: number;
  readonly extension: LayoutExtension | undefined;
}

/**
 * Makes files of a layout readable again that another program left empty, torn or deleted: `oci-layout`, and an
 * `index.json` that is no index. A broken `index.json` is kept in `.layercache/broken-index.json`; its entries that can
 * be read stay, and those that the index map, the journal and the owner of the layout know come back when it is opened.
 *
 * @returns one sentence for each thing that was done
 */
export async function restoreLayout(
  files: FileSystem,
  dir: string,
  { lockTimeout, extension }: RestoreOptions,
): Promise<string[]> {
  if (!hasLayoutState(files, dir)) return [];
  const lock = new LayoutLock(files, join(dir, '.layercache', 'lock'), lockTimeout);
  try {
    return await lock.exclusive('repair', async () => {
      const done: string[] = [];
      const temps = new TempFiles(files, dir);
      if (!isLayoutFile(read(files, join(dir, 'oci-layout')))) {
        await replace(files, temps, join(dir, 'oci-layout'), layoutFileText);
        done.push(`oci-layout was missing or broken; it was written again, for version ${LAYOUT_VERSION}`);
      }
      const index = join(dir, 'index.json');
      const bytes = read(files, index);
      if (bytes !== undefined && isWholeIndex(bytes, index)) return done;
      const kept = bytes === undefined ? undefined : readableEntries(bytes);
      const state = bytes === undefined ? 'was missing' : bytes.length === 0 ? 'was empty' : 'was broken';
      const copy =
        bytes === undefined || bytes.length === 0 ? '' : '; it is now .layercache/broken-index.json';
      if (bytes !== undefined && bytes.length > 0) {
        await replace(files, temps, join(dir, '.layercache', 'broken-index.json'), bytes);
      }
      const { entries, source } = await rebuiltEntries(files, dir, kept, extension);
      if (entries !== undefined) await replace(files, temps, index, canonicalIndex(entries));
      else if (bytes !== undefined) await files.unlink(index);
      done.push(`index.json ${state}${copy}; it was made again from ${source}`);
      return done;
    });
  } finally {
    lock.close();
  }
}

/** Whether there is more than an empty folder, or one of something else. */
function hasLayoutState(files: FileSystem, dir: string): boolean {
  return [join(dir, '.layercache', 'map'), join(dir, 'blobs', 'sha256')].some((path) => {
    try {
      files.statSync(path);
      return true;
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return false;
      throw error;
    }
  });
}

/** What is written as `index.json`; nothing when the map knows it all, and the layout is opened from that. */
async function rebuiltEntries(
  files: FileSystem,
  dir: string,
  kept: Descriptor[] | undefined,
  extension: LayoutExtension | undefined,
): Promise<{ readonly entries?: readonly Descriptor[]; readonly source: string }> {
  if (kept !== undefined && kept.length > 0)
    return { entries: kept, source: `${kept.length} entries that are valid` };
  if (hasMap(files, dir)) return { source: 'the index map and the journal' };
  const derived = await newestDerived(files, dir, extension);
  if (derived === undefined) return { entries: [], source: 'nothing: no index map is here' };
  return { entries: [derived], source: `what the last commit derived, ${derived.digest}` };
}

function hasMap(files: FileSystem, dir: string): boolean {
  try {
    files.closeSync(openMapFile(files, join(dir, '.layercache', 'map')).fd);
    return true;
  } catch (error) {
    if (error instanceof MapInvalid || isSystemError(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

/**
 * The blob written last that the owner of the layout recognises as derived from all entries. One that a manifest here
 * lists came with an image, and may say what its author likes.
 */
async function newestDerived(
  files: FileSystem,
  dir: string,
  extension: LayoutExtension | undefined,
): Promise<Descriptor | undefined> {
  if (extension?.recognise === undefined) return undefined;
  const found: { readonly descriptor: Descriptor; readonly usedAt: Date }[] = [];
  const listed = new Set<Digest>();
  for await (const { digest, size, usedAt } of storedBlobs(files, dir)) {
    if (size > MAX_DERIVED) continue;
    const bytes = read(files, join(dir, 'blobs', digestAlgorithm(digest), digestHex(digest)));
    if (bytes === undefined || digestOf(bytes, digestAlgorithm(digest)) !== digest) continue;
    const descriptor = extension.recognise(bytes, digest);
    if (descriptor !== undefined) found.push({ descriptor, usedAt });
    else for (const each of listedIn(bytes)) listed.add(each);
  }
  const own = found.filter(({ descriptor }) => !listed.has(descriptor.digest));
  const newest = own.reduce((time, { usedAt }) => Math.max(time, usedAt.getTime()), 0);
  // The one before it stays for a while after a commit, and may have been read since; the larger one says more.
  const late = own.filter(({ usedAt }) => newest - usedAt.getTime() < ONE_COMMIT);
  return late.sort((a, b) => b.descriptor.size - a.descriptor.size)[0]?.descriptor;
}

/** The digests that a manifest or index lists; none of what is no such document. */
function listedIn(bytes: Buffer): Digest[] {
  try {
    const { config, layers, manifests } = parseDocument(listingSchema, bytes, 'a document');
    return [config ?? [], layers ?? [], manifests ?? []].flat().map(({ digest }) => digest);
  } catch (error) {
    if (error instanceof LayercacheError) return [];
    throw error;
  }
}

const listedSchema = z.object({ digest: digestSchema });
const listingSchema = z.object({
  config: listedSchema.nullish(),
  layers: z.array(listedSchema).nullish(),
  manifests: z.array(listedSchema).nullish(),
});

function canonicalIndex(descriptors: readonly Descriptor[]): string {
  return [
    ...indexText(
      emptyHead,
      descriptors.map((descriptor) => ({ descriptor, proven: false })),
    ),
  ].join('');
}

/** The entries of a broken index that are valid by themselves; undefined when it is not even JSON. */
function readableEntries(bytes: Buffer): Descriptor[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('manifests' in value)) return undefined;
  if (!Array.isArray(value.manifests)) return undefined;
  return value.manifests.flatMap((one: unknown) => {
    const checked = descriptorSchema.safeParse(one);
    return checked.success && !isDeep(one) ? [checked.data] : [];
  });
}

function read(files: FileSystem, path: string): Buffer | undefined {
  try {
    return files.readFileSync(path);
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return undefined;
    throw error;
  }
}

async function replace(
  files: FileSystem,
  temps: TempFiles,
  path: string,
  content: string | Uint8Array,
): Promise<void> {
  const temp = await temps.create({ target: dirname(path) });
  try {
    await writeFully(files, temp.fd, Buffer.from(content), 0);
    await files.fsync(temp.fd);
    await files.rename(temp.path, path);
  } finally {
    await temps.discard(temp);
  }
}
