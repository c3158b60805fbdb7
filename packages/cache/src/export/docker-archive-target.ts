import { LayercacheError, digestHex, type Descriptor } from '@layercache/oci';
import type { ExportTarget, ExportedImage } from './export-target.js';
import { documentMember, writeTar, type TarMember } from './tar-writer.js';

/** What `docker load` reads: a config, uncompressed layers, and manifest.json which says what is what. */
export class DockerArchiveTarget implements ExportTarget {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async write(image: ExportedImage, signal: AbortSignal | undefined): Promise<void> {
    const [manifest, ...others] = image.manifests;
    if (manifest === undefined || others.length > 0) {
      throw new LayercacheError(
        'UNSUPPORTED',
        `a Docker archive holds one platform, and ${image.name ?? image.descriptor.digest} has ${image.manifests.length}: export it to oci-archive:, or add one platform under a name of its own`,
      );
    }
    if (image.referrers.length > 0) {
      throw new LayercacheError(
        'UNSUPPORTED',
        `a Docker archive holds an image and nothing beside it: export ${image.name ?? image.descriptor.digest} with its SOCI index to oci: or oci-archive:`,
      );
    }
    await writeTar(this.#path, members(image, manifest.config, manifest.layers), signal);
  }
}

async function* members(
  image: ExportedImage,
  config: Descriptor,
  layers: readonly Descriptor[],
): AsyncGenerator<TarMember> {
  const files: string[] = [];
  const written = new Set<string>();
  for (const layer of layers) {
    const { diffID, size, tar } = await image.readTar(layer);
    const name = `${digestHex(diffID).slice(0, 64)}.tar`;
    files.push(name);
    // A layer may stand in an image twice.
    if (written.has(name)) tar.destroy();
    else yield { name, size, read: () => tar };
    written.add(name);
  }
  const configFile = `${digestHex(config.digest).slice(0, 64)}.json`;
  yield { name: configFile, size: config.size, read: () => image.read(config.digest) };
  const tags = image.name === undefined || image.name.includes('@') ? null : [image.name];
  yield documentMember('manifest.json', [{ Config: configFile, RepoTags: tags, Layers: files }]);
}
