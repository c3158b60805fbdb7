import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OciLayout } from '@layercache/layout';
import { LayercacheError, abortedError, throwIfAborted } from '@layercache/oci';
import { namedDescriptor, type ExportTarget, type ExportedImage } from './export-target.js';
import { PlainLayout } from './plain-layout.js';

/** An OCI image layout in a folder, made where there is none; other images in it stay. It may be a cache itself. */
export class LayoutTarget implements ExportTarget {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async write(image: ExportedImage, signal: AbortSignal | undefined): Promise<void> {
    const entries = [namedDescriptor(image), ...image.referrers];
    // Another cache has a journal, which index.json alone does not tell of.
    if (existsSync(join(this.#dir, '.layercache'))) {
      await this.#writeToCache(image, entries, signal);
      return;
    }
    try {
      const layout = await PlainLayout.open(this.#dir);
      for (const part of image.parts) {
        throwIfAborted(signal);
        await layout.write(part, image, signal);
      }
      await layout.put(entries, signal);
    } catch (error) {
      if (error instanceof LayercacheError) throw error;
      if (signal?.aborted === true) throw abortedError(signal);
      throw new LayercacheError('STORAGE', `oci:${this.#dir} cannot be written: ${String(error)}`, {
        cause: error,
      });
    }
  }

  async #writeToCache(
    image: ExportedImage,
    entries: readonly ReturnType<typeof namedDescriptor>[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const layout = await OciLayout.open(this.#dir);
    try {
      for (const part of image.parts) {
        throwIfAborted(signal);
        if (await layout.has(part.digest, part.size)) continue;
        await layout.write(image.read(part.digest), { digest: part.digest, size: part.size, signal });
      }
      await layout.put(entries);
    } finally {
      await layout.close();
    }
  }
}
