import { digestAlgorithm, digestHex } from '@layercache/oci';
import { namedDescriptor, type ExportTarget, type ExportedImage } from './export-target.js';
import { documentMember, writeTar } from './tar-writer.js';

/** An OCI image layout as one tar file. */
export class OciArchiveTarget implements ExportTarget {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async write(image: ExportedImage, signal: AbortSignal | undefined): Promise<void> {
    await writeTar(
      this.#path,
      [
        documentMember('oci-layout', { imageLayoutVersion: '1.0.0' }),
        documentMember('index.json', {
          schemaVersion: 2,
          manifests: [namedDescriptor(image), ...image.referrers],
        }),
        ...image.parts.map((part) => ({
          name: `blobs/${digestAlgorithm(part.digest)}/${digestHex(part.digest)}`,
          size: part.size,
          read: () => image.read(part.digest),
        })),
      ],
      signal,
    );
  }
}
