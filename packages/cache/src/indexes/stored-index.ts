import {
  Annotation,
  MediaType,
  isDigest,
  layerForm,
  type Descriptor,
  type Digest,
  type LayerForm,
} from '@layercache/oci';
import type { Ztoc } from '@layercache/layer';

/** The form of a layer that an index describes: a gzip as it is, any other layer as its tar. */
export interface DescribedLayer {
  readonly digest: Digest;
  readonly form: Exclude<LayerForm, 'tar+zstd'>;
}

/** A layer index, decoded. */
export interface StoredLayerIndex {
  /** Of the blob that holds it. */
  readonly digest: Digest;
  /** Bytes of that blob. */
  readonly size: number;
  readonly layer: DescribedLayer;
  readonly diffID: Digest;
  readonly ztoc: Ztoc;
  /** Whether this machine made it. What others made is a claim. */
  readonly proven: boolean;
}

/** What can be said of an index without decoding it. */
export interface IndexSummary {
  /** Of the blob that holds the index. */
  readonly indexDigest: Digest;
  readonly diffID: Digest;
  /** Entries of the tar. */
  readonly files: number;
}

export function summaryOf({ digest, diffID, ztoc }: StoredLayerIndex): IndexSummary {
  return { indexDigest: digest, diffID, files: ztoc.entries.length };
}

/** What the entry of an index says; undefined when it does not say enough. */
export function entrySummary({ digest, annotations }: Descriptor): IndexSummary | undefined {
  const diffID = annotations?.[Annotation.diffID];
  const files = annotations?.[Annotation.files];
  if (diffID === undefined || !isDigest(diffID) || files === undefined || !/^\d{1,9}$/.test(files))
    return undefined;
  return { indexDigest: digest, diffID, files: Number(files) };
}

/** The entry of an index. Its diffID makes it found where the layer is. */
export function indexDescriptor({
  digest,
  size,
  layer,
  diffID,
  ztoc,
}: Pick<StoredLayerIndex, 'digest' | 'size' | 'layer' | 'diffID' | 'ztoc'>): Descriptor {
  return {
    mediaType: MediaType.octetStream,
    digest,
    size,
    annotations: {
      [Annotation.sociLayerDigest]: layer.digest,
      [Annotation.diffID]: diffID,
      [Annotation.files]: String(ztoc.entries.length),
    },
  };
}

/** The digest of the layer that an entry is the index of; undefined when it is no index. */
export function indexedLayer(descriptor: Descriptor): Digest | undefined {
  const layer = descriptor.annotations?.[Annotation.sociLayerDigest];
  return layer !== undefined && isDigest(layer) && layerForm(descriptor.mediaType) === undefined
    ? layer
    : undefined;
}
