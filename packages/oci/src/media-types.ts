/** Media types of the OCI image specification (media-types.md) and their Docker counterparts. */
export const MediaType = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  layerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  layerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  empty: 'application/vnd.oci.empty.v1+json',
  dockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  dockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  dockerForeignLayerGzip: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  octetStream: 'application/octet-stream',
} as const;

/** One encoding of a layer. The form `tar` has digest == diffID. */
export type LayerForm = 'tar' | 'tar+gzip' | 'tar+zstd';

const NONDISTRIBUTABLE = 'application/vnd.oci.image.layer.nondistributable.v1.tar';

const FORMS: ReadonlyMap<string, LayerForm> = new Map([
  [MediaType.layer, 'tar'],
  [MediaType.layerGzip, 'tar+gzip'],
  [MediaType.layerZstd, 'tar+zstd'],
  [NONDISTRIBUTABLE, 'tar'],
  [`${NONDISTRIBUTABLE}+gzip`, 'tar+gzip'],
  [`${NONDISTRIBUTABLE}+zstd`, 'tar+zstd'],
  [MediaType.dockerLayer, 'tar'],
  [MediaType.dockerLayerGzip, 'tar+gzip'],
  [MediaType.dockerLayerZstd, 'tar+zstd'],
  [MediaType.dockerForeignLayerGzip, 'tar+gzip'],
]);

/** The form a layer's media type says it has; undefined for anything that is not a known layer type. */
export function layerForm(mediaType: string): LayerForm | undefined {
  return FORMS.get(mediaType);
}

/** Layers whose bytes may have to stay where their vendor put them (layer.md, "Non-Distributable Layers"). */
export function isNondistributable(mediaType: string): boolean {
  return mediaType.startsWith(NONDISTRIBUTABLE) || mediaType === MediaType.dockerForeignLayerGzip;
}

/** The media type of the same layer in the form `tar`. */
export function uncompressedMediaType(mediaType: string): string {
  return mediaType.startsWith('application/vnd.docker.') ? MediaType.dockerLayer : MediaType.layer;
}

export function isIndexMediaType(mediaType: string): boolean {
  return mediaType === MediaType.index || mediaType === MediaType.dockerManifestList;
}

export function isImageManifestMediaType(mediaType: string): boolean {
  return mediaType === MediaType.manifest || mediaType === MediaType.dockerManifest;
}

/** What a registry stores under `/manifests/`: an image manifest or an image index. */
export function isManifestMediaType(mediaType: string): boolean {
  return isImageManifestMediaType(mediaType) || isIndexMediaType(mediaType);
}
