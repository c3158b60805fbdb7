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

/** The entry of an index. Its diffID makes it found where the layer is. */
export function indexDescriptor({
  digest,
  size,
  layer,
  diffID,
}: Pick<StoredLayerIndex, 'digest' | 'size' | 'layer' | 'diffID'>): Descriptor {
  return {
    mediaType: MediaType.octetStream,
    digest,
    size,
    annotations: { [Annotation.sociLayerDigest]: layer.digest, [Annotation.diffID]: diffID },
  };
}

/** The digest of the layer that an entry is the index of; undefined when it is no index. */
export function indexedLayer(descriptor: Descriptor): Digest | undefined {
  const layer = descriptor.annotations?.[Annotation.sociLayerDigest];
  return layer !== undefined && isDigest(layer) && layerForm(descriptor.mediaType) === undefined
    ? layer
    : undefined;
}
