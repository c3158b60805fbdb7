import {
  Annotation,
  Digester,
  LayercacheError,
  MediaType,
  digestHex,
  digestAlgorithm,
  digestOf,
  parseDocument,
  parseImageConfig,
  parseImageIndex,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { Readable } from 'node:stream';
import { z } from 'zod';
import { selectNamed } from './layout-source.js';
import type { ImageStore } from './stored-image.js';
import { TarIndex } from './tar-index.js';

/** Bytes. Of index.json, manifest.json or an image config in an archive. */
const MAX_DOCUMENT = 16 * 1024 * 1024;

/** An OCI image layout packed as one tar file. */
export async function openOciArchive(path: string): Promise<ImageStore> {
  const tar = await TarIndex.open(path);
  const name = `oci-archive:${path}`;
  if (tar.size('index.json') === undefined) {
    throw new LayercacheError('ARCHIVE_INVALID', `${path} has no index.json: it is not an OCI archive`);
  }
  const index = parseImageIndex(await tar.readBytes('index.json', MAX_DOCUMENT), `index.json of ${path}`);
  const file = (digest: Digest): string => `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
  return {
    name,
    resolve: async (tag) => Promise.resolve(selectNamed(index.manifests, tag, name)),
    size: async (digest) => Promise.resolve(tar.size(file(digest))),
    read: (digest, start, signal) => tar.read(file(digest), start, signal),
  };
}

/** Images in one archive: each is described by reading its config and, where they are compressed, its layers. */
const MAX_IMAGES = 1000;

/** `manifest.json` of `docker save`: the images in it, each with a config file and layer files. */
const dockerManifestSchema = z
  .array(
    z.looseObject({
      Config: z.string(),
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(z.string()),
    }),
  )
  .min(1)
  .max(MAX_IMAGES);

/**
 * An archive of `docker save`. It has no manifests and no digests: the image becomes an OCI image whose layers
 * are the tars as they are, named by the diffIDs of its config.
 */
export async function openDockerArchive(path: string): Promise<ImageStore & { tags(): string[] }> {
  const tar = await TarIndex.open(path);
  const name = `docker-archive:${path}`;
  if (tar.size('manifest.json') === undefined) {
    throw new LayercacheError(
      'ARCHIVE_INVALID',
      `${path} has no manifest.json: it is not an archive of docker save`,
    );
  }
  const images = parseDocument(
    dockerManifestSchema,
    await tar.readBytes('manifest.json', MAX_DOCUMENT),
    `manifest.json of ${path}`,
  );
  const files = new Map<Digest, string>();
  const documents = new Map<Digest, Uint8Array>();
  const named: Descriptor[] = [];
  for (const image of images) {
    const config = await tar.readBytes(image.Config, MAX_DOCUMENT);
    const { rootfs } = parseImageConfig(config, `${image.Config} of ${path}`);
    if (rootfs.diff_ids.length !== image.Layers.length) {
      throw new LayercacheError(
        'ARCHIVE_INVALID',
        `${path}: ${image.Config} has ${rootfs.diff_ids.length} diffIDs for ${image.Layers.length} layers`,
      );
    }
    const layers: Descriptor[] = [];
    for (const [position, diffID] of rootfs.diff_ids.entries()) {
      const file = image.Layers[position] ?? '';
      const layer = await describeLayer(tar, file, diffID);
      files.set(layer.digest, file);
      layers.push(layer);
    }
    const configDigest = digestOf(config);
    documents.set(configDigest, config);
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config: { mediaType: MediaType.config, digest: configDigest, size: config.length },
        layers,
      }),
    );
    const digest = digestOf(manifest);
    documents.set(digest, manifest);
    const descriptor = { mediaType: MediaType.manifest, digest, size: manifest.length };
    const tags = image.RepoTags ?? [];
    if (tags.length === 0) named.push(descriptor);
    for (const tag of tags) {
      named.push({ ...descriptor, annotations: { [Annotation.refName]: tag } });
    }
  }
  return {
    name,
    tags: () => images.flatMap((image) => image.RepoTags ?? []),
    resolve: async (tag) => Promise.resolve(selectNamed(oneImage(named, tag), tag, name)),
    size: async (digest) => {
      const file = files.get(digest);
      return Promise.resolve(
        documents.get(digest)?.length ?? (file === undefined ? undefined : tar.size(file)),
      );
    },
    read: (digest, start, signal) => {
      const document = documents.get(digest);
      if (document !== undefined) return Readable.from([document.subarray(start)]);
      return tar.read(files.get(digest) ?? '', start, signal);
    },
  };
}

/** With Docker's containerd store, `docker save` leaves layers compressed as they came from their registry. */
async function describeLayer(tar: TarIndex, file: string, diffID: Digest): Promise<Descriptor> {
  const size = tar.size(file);
  if (size === undefined) throw new LayercacheError('ARCHIVE_INVALID', `${tar.path} has no layer ${file}`);
  const magic = (await tar.readStart(file, 4)).toString('hex');
  const mediaType = magic.startsWith('1f8b')
    ? MediaType.layerGzip
    : magic === '28b52ffd'
      ? MediaType.layerZstd
      : MediaType.layer;
  if (mediaType === MediaType.layer) return { mediaType, digest: diffID, size };
  const digester = new Digester();
  for await (const bytes of tar.read(file) as AsyncIterable<Uint8Array>) digester.update(bytes);
  return { mediaType, digest: digester.digest(), size };
}

/** An archive of one image with several tags has one image, when none is asked for. */
function oneImage(named: readonly Descriptor[], tag: string): readonly Descriptor[] {
  const [first] = named;
  if (tag !== '' || first === undefined) return named;
  return named.every((each) => each.digest === first.digest) ? [first] : named;
}
