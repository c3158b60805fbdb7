import { createReadStream } from 'node:fs';
import { OciLayout } from '@layercache/layout';
import { LayercacheError, isManifestMediaType, refName, type Descriptor } from '@layercache/oci';
import type { ImageStore } from './stored-image.js';

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

/** Another OCI image layout on this disk. */
export async function openLayoutStore(dir: string): Promise<ImageStore & { close(): Promise<void> }> {
  const layout = await OciLayout.open(dir, { create: false });
  const name = `oci:${dir}`;
  return {
    name,
    resolve: async (tag) =>
      Promise.resolve(
        selectNamed(
          [...layout.entries()].map((entry) => entry.descriptor),
          tag,
          name,
        ),
      ),
    size: (digest) => layout.blobSize(digest),
    read: (digest, start, signal) =>
      createReadStream(layout.blobPath(digest), {
        start,
        highWaterMark: 1 << 20,
        ...(signal ? { signal } : {}),
      }),
    close: () => layout.close(),
  };
}
