import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { OciLayout } from '@layercache/layout';
import { throwIfAborted } from '@layercache/oci';
import { namedDescriptor, type ExportTarget, type ExportedImage } from './export-target.js';

/** An OCI image layout in a folder, made where there is none; other images in it stay. */
export class LayoutTarget implements ExportTarget {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async write(image: ExportedImage, signal: AbortSignal | undefined): Promise<void> {
    const sideState = join(this.#dir, '.layercache');
    const isCache = existsSync(sideState);
    const layout = await OciLayout.open(this.#dir);
    try {
      for (const part of image.parts) {
        throwIfAborted(signal);
        if (await layout.has(part.digest, part.size)) continue;
        await layout.write(image.read(part.digest), { digest: part.digest, size: part.size, signal });
      }
      await layout.put([namedDescriptor(image), ...image.referrers]);
    } finally {
      await layout.close();
    }
    // Other tools have no use for what makes the next lookup quick.
    if (!isCache) await rm(sideState, { recursive: true, force: true });
  }
}
