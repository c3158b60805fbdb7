import { isDigest, type Digest } from './digest.js';
import { layerForm } from './media-types.js';
import type { Descriptor } from './descriptor.js';

export const Annotation = {
  /** On a compressed layer: its diffID. */
  diffID: 'dev.layercache.diffid',
  /** On a tar: the digests of its compressed counterparts, comma-separated, sorted. */
  digest: 'dev.layercache.digest',
  /** The name of an entry of index.json (annotations.md). */
  refName: 'org.opencontainers.image.ref.name',
  /** On the entry of an image: `true` while it must stay, whatever room is wanted. It does not travel. */
  pinned: 'dev.layercache.pinned',
  /** On the entry of an image: when its time is over (RFC 3339), or nothing. It does not travel. */
  expires: 'dev.layercache.expires',
  /** On the entry of an image: `claimed` while its name is only what a shared cache says. It does not travel. */
  nameState: 'dev.layercache.name',
  containerdName: 'io.containerd.image.name',
  /** On an entry or image of a shared cache: how often what it says was replaced, in decimal. It stays there. */
  revision: 'dev.layercache.revision',
  /** On a layer index (SOCI zTOC): the digest of the layer it describes, in the form that it describes. */
  sociLayerDigest: 'com.amazon.soci.image-layer-digest',
  /** On a layer index: how many entries the tar has, in decimal. */
  files: 'dev.layercache.files',
  /** On a layer index that came with a SOCI index manifest: the image that this one refers to, and the only one it serves. */
  indexedImage: 'dev.layercache.image',
  /** On a layer index in a SOCI index manifest: the media type of that layer. */
  sociLayerMediaType: 'com.amazon.soci.image-layer-mediaType',
  /** On a SOCI index manifest: who made it. */
  sociBuildTool: 'com.amazon.soci.build-tool-identifier',
} as const;

/** What other tools call a layer's diffID and digests. Accepted on reading, never written. */
const DIFF_ID_NAMES = [Annotation.diffID, 'dev.ggcr.cache.diffid', 'containerd.io/uncompressed'];
const DIGEST_NAMES = [Annotation.digest, 'dev.ggcr.cache.digest'];

/** The diffID a descriptor claims, whoever annotated it. A `tar` layer is its own diffID. */
export function claimedDiffID(descriptor: Descriptor): Digest | undefined {
  if (layerForm(descriptor.mediaType) === 'tar') return descriptor.digest;
  for (const name of DIFF_ID_NAMES) {
    const value = descriptor.annotations?.[name];
    if (value !== undefined && isDigest(value)) return value;
  }
  return undefined;
}

/** The compressed counterparts that a tar's descriptor claims, sorted, without repeats. */
export function claimedDigests(descriptor: Descriptor): Digest[] {
  const found = new Set<Digest>();
  for (const name of DIGEST_NAMES) {
    for (const part of (descriptor.annotations?.[name] ?? '').split(',')) {
      const value = part.trim();
      if (isDigest(value)) found.add(value);
    }
  }
  return [...found].sort();
}

/** Whether the name of an entry is only what a shared cache says: no user and no registry gave it to this machine. */
export function isClaimedName(descriptor: Descriptor): boolean {
  return refName(descriptor) !== undefined && descriptor.annotations?.[Annotation.nameState] === 'claimed';
}

/** The name of an entry; undefined when it has none. An empty one is none. */
export function refName(descriptor: Descriptor): string | undefined {
  const name = descriptor.annotations?.[Annotation.refName];
  return name === '' ? undefined : name;
}

/** The same descriptor with annotations set, or removed where the value is undefined. */
export function withAnnotations(
  descriptor: Descriptor,
  changes: Readonly<Record<string, string | undefined>>,
): Descriptor {
  const { annotations: before, ...rest } = descriptor;
  const annotations: Record<string, string> = { ...before };
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) Reflect.deleteProperty(annotations, name);
    else annotations[name] = value;
  }
  return Object.keys(annotations).length === 0 ? rest : { ...rest, annotations };
}
