import { MediaType, isDigest, isManifestMediaType, type Descriptor, type Digest } from '@layercache/oci';
import { collect } from './blobs.js';
import type { OciLayout } from './oci-layout.js';
import { referencedFrom, type StoredBlob } from './stored-blobs.js';

const HEAD = 512;
/** Documents are looked into as a whole; larger ones are not documents. */
const MAX_DOCUMENT = 4 * 1024 * 1024;

/** Descriptors for blobs that have no entry: as a manifest that is here names them, or by what their bytes are. */
export async function describeOrphans(
  layout: OciLayout,
  orphans: readonly StoredBlob[],
): Promise<Descriptor[]> {
  const sniffed = new Map<Digest, Descriptor>();
  for (const { digest, size } of orphans) {
    sniffed.set(digest, { mediaType: await sniffMediaType(layout, digest, size), digest, size });
  }
  const roots = [...sniffed.values(), ...Array.from(layout.entries(), (entry) => entry.descriptor)];
  const named = await referencedFrom(
    layout,
    roots.filter((descriptor) => isManifestMediaType(descriptor.mediaType)),
  );
  return [...sniffed.values()].map((descriptor) => {
    const better = named.get(descriptor.digest);
    // Of what a manifest says of its parts, nothing else is for an entry: least of all annotations.
    return better?.size === descriptor.size ? { ...descriptor, mediaType: better.mediaType } : descriptor;
  });
}

async function sniffMediaType(layout: OciLayout, digest: Digest, size: number): Promise<string> {
  const head = await collect(layout.read(digest, { start: 0, end: HEAD }));
  if (head[0] === 0x1f && head[1] === 0x8b) return MediaType.layerGzip;
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return MediaType.layerZstd;
  if (head.toString('latin1', 257, 262) === 'ustar') return MediaType.layer;
  if (head[0] === 0x7b && size <= MAX_DOCUMENT) return documentType(await layout.readBytes(digest));
  return MediaType.octetStream;
}

function documentType(bytes: Uint8Array): string {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return MediaType.octetStream;
  }
  if (typeof value !== 'object' || value === null) return MediaType.octetStream;
  if ('mediaType' in value && typeof value.mediaType === 'string' && isManifestMediaType(value.mediaType)) {
    return value.mediaType;
  }
  if ('manifests' in value && Array.isArray(value.manifests)) return MediaType.index;
  if ('layers' in value && 'config' in value && Array.isArray(value.layers)) return MediaType.manifest;
  return isImageConfig(value) ? MediaType.config : MediaType.octetStream;
}

function isImageConfig(value: object): boolean {
  if (!('rootfs' in value) || typeof value.rootfs !== 'object' || value.rootfs === null) return false;
  if (!('diff_ids' in value.rootfs) || !Array.isArray(value.rootfs.diff_ids)) return false;
  return value.rootfs.diff_ids.every((diffID) => typeof diffID === 'string' && isDigest(diffID));
}
