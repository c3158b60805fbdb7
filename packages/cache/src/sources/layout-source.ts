import { open, readFile, readdir, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import {
  LayercacheError,
  digestAlgorithm,
  digestHex,
  isManifestMediaType,
  parseImageIndex,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { ImageStore } from './stored-image.js';

/** Bytes of an index.json. A cache of 100,000 entries has some 50 MB. */
const MAX_INDEX = 256 * 1024 * 1024;
const READ_SIZE = 1024 * 1024;

/** The entry of an index.json that a name means. Tools write the tag alone or the full reference: both count. */
export function selectNamed(entries: readonly Descriptor[], name: string, where: string): Descriptor {
  const manifests = entries.filter((entry) => isManifestMediaType(entry.mediaType));
  const names = manifests.flatMap((entry) => refName(entry) ?? []);
  const hint = names.length === 0 ? 'it names none' : `it has ${names.slice(0, 10).join(', ')}`;
  if (name !== '') {
    const named =
      manifests.find((entry) => refName(entry) === name) ??
      manifests.find((entry) => refName(entry)?.endsWith(`:${name}`));
    if (named !== undefined) return named;
    throw new LayercacheError('NOT_FOUND', `${where} has no image named "${name}"; ${hint}`);
  }
  const [only, ...others] = manifests;
  if (only === undefined) throw new LayercacheError('NOT_FOUND', `${where} has no image`);
  if (others.length > 0) {
    throw new LayercacheError('USAGE', `${where} has ${manifests.length} images: say which; ${hint}`);
  }
  return only;
}

/**
 * Another OCI image layout on this disk. It is read as any tool reads one, from its `index.json`, and left as it is: no
 * lock, no side state, so that a read-only folder is as good as any.
 *
 * @throws LayercacheError `NOT_FOUND`, `LAYOUT_INVALID`, `STORAGE`
 */
export async function openLayoutStore(dir: string): Promise<ImageStore> {
  const name = `oci:${dir}`;
  await checkLayout(dir, name);
  const entries = async (): Promise<readonly Descriptor[]> => {
    const bytes = await readIndex(join(dir, 'index.json'), name);
    return parseImageIndex(bytes, `index.json of ${name}`).manifests;
  };
  const file = (digest: Digest): string => join(dir, 'blobs', digestAlgorithm(digest), digestHex(digest));
  return {
    name,
    resolve: async (tag) => selectNamed(await entries(), tag, name),
    size: async (digest) => {
      try {
        const facts = await stat(file(digest));
        return facts.isFile() ? facts.size : undefined;
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw unreadable(name, error);
      }
    },
    read: (digest, start, signal) =>
      Readable.from(bytesFrom(file(digest), start, `${name}: blob ${digest}`, signal), { objectMode: false }),
  };
}

async function checkLayout(dir: string, name: string): Promise<void> {
  const there = await readdir(dir).catch((error: unknown) => {
    if (!isMissing(error)) throw unreadable(name, error);
    throw new LayercacheError('NOT_FOUND', `there is no layout in ${name}: check the path`, { cause: error });
  });
  if (there.length === 0)
    throw new LayercacheError('NOT_FOUND', `${name} is an empty folder: check the path`);
  if (there.includes('oci-layout')) return;
  throw new LayercacheError(
    'LAYOUT_INVALID',
    `${name} has no file oci-layout, so it is not an OCI image layout: check the path`,
  );
}

async function readIndex(path: string, name: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size <= MAX_INDEX) return await readFile(path);
  } catch (error) {
    if (!isMissing(error)) throw unreadable(name, error);
    throw new LayercacheError('NOT_FOUND', `${name} has no images: it has no index.json`, { cause: error });
  }
  throw new LayercacheError('LAYOUT_INVALID', `${path} has more than ${MAX_INDEX} bytes`);
}

/** Errors of the file become ours; a stream that is destroyed closes its file and says nothing. */
async function* bytesFrom(
  path: string,
  start: number,
  what: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  throwIfAborted(signal);
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    for (let position = start; ;) {
      throwIfAborted(signal);
      const buffer = Buffer.allocUnsafeSlow(READ_SIZE);
      const { bytesRead } = await file.read(buffer, 0, READ_SIZE, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    if (error instanceof LayercacheError) throw error;
    if (!isMissing(error)) throw unreadable(what, error);
    throw new LayercacheError('NOT_FOUND', `${what} is gone`, { cause: error });
  } finally {
    await file?.close();
  }
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function unreadable(what: string, error: unknown): LayercacheError {
  return new LayercacheError('STORAGE', `${what} cannot be read: ${String(error)}`, { cause: error });
}
