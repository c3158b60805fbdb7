import {
  Annotation,
  MediaType,
  claimedDiffID,
  isManifestMediaType,
  layerForm,
  withAnnotations,
  type Descriptor,
} from '@layercache/oci';

/** Of a registry that has the blob; the value lists repositories there. */
export const ORIGIN_PREFIX = 'containerd.io/distribution.source.';
/** Repositories of one registry that are remembered for a blob. */
const MAX_REPOSITORIES = 16;

/** Annotations by which one document makes claims about a blob. */
export const CLAIMS: readonly string[] = [
  Annotation.diffID,
  Annotation.sociLayerDigest,
  Annotation.indexedImage,
  Annotation.files,
];

/**
 * Two descriptors of one digest and one name as one. Annotations of both stand, and the new ones win, with these
 * exceptions, so that what one document says of a blob does not undo what another said or this machine proved:
 *
 * - The media type and other fields of a layer, manifest, image config or layer index stay; any other is replaced.
 * - A claim (of a diffID, or that the blob is a layer index) stays until this machine proves another one, and is not
 *   made of what has another purpose. An empty value takes a claim back for good.
 * - A name that was claimed is not any more when it is put without being called so.
 *
 * @param proven whether this machine decompressed and hashed the new pair: then everything new wins
 */
export function uniteEntries(before: Descriptor, after: Descriptor, proven: boolean): Descriptor {
  const purpose = purposeOf(before);
  const fields = proven || purpose === undefined ? { ...before, ...after } : { ...before, size: after.size };
  const united = { ...fields, annotations: uniteAnnotations(before, after) };
  const annotations: Record<string, string | undefined> = {
    [Annotation.nameState]: after.annotations?.[Annotation.nameState],
  };
  if (!proven) {
    for (const name of CLAIMS) {
      const [old, fresh] = [before.annotations?.[name], after.annotations?.[name]];
      if (fresh === undefined || fresh === '') continue;
      if (old !== undefined) annotations[name] = old;
      else if (!takesClaim(purpose, name)) annotations[name] = undefined;
    }
    const diffID = claimedDiffID(before);
    if (purpose === 'layer' && diffID !== undefined) annotations[Annotation.diffID] = diffID;
  }
  // A tar is its own diffID.
  if (layerForm(united.mediaType) === 'tar') annotations[Annotation.diffID] = undefined;
  return withAnnotations(united, annotations);
}

/** Lists of repositories that have the blob are united: that one has it says nothing about the others. */
function uniteAnnotations(before: Descriptor, after: Descriptor): Record<string, string> {
  const united: Record<string, string> = { ...before.annotations, ...after.annotations };
  for (const [name, value] of Object.entries(after.annotations ?? {})) {
    const old = before.annotations?.[name];
    if (old === undefined || old === value || !name.startsWith(ORIGIN_PREFIX)) continue;
    const repositories = new Set([...value.split(','), ...old.split(',')]);
    united[name] = [...repositories].slice(0, MAX_REPOSITORIES).sort().join(',');
  }
  return united;
}

type Purpose = 'layer' | 'layer-index' | 'document';

/** What a blob is known to be for; undefined for a plain one. */
function purposeOf({ mediaType, annotations }: Descriptor): Purpose | undefined {
  if (layerForm(mediaType) !== undefined) return 'layer';
  if (isManifestMediaType(mediaType)) return 'document';
  if (mediaType === MediaType.config || mediaType === MediaType.dockerConfig) return 'document';
  return annotations?.[Annotation.sociLayerDigest] === undefined ? undefined : 'layer-index';
}

function takesClaim(purpose: Purpose | undefined, name: string): boolean {
  if (purpose === undefined || purpose === 'layer-index') return true;
  return purpose === 'layer' && name === Annotation.diffID;
}
