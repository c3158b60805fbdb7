import { constants, existsSync } from 'node:fs';
import { link, mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { nodeFileSystem } from '@layercache/layout';
import {
  Annotation,
  LayercacheError,
  digestAlgorithm,
  digestHex,
  parseImageIndex,
  refName,
  throwIfAborted,
  withAnnotations,
  type Descriptor,
} from '@layercache/oci';
import type { ExportedImage } from './export-target.js';

/** How long to wait for other exports into the same layout, in ms. Each edit takes some milliseconds. */
const PATIENCE = 60_000;
const POLL = 10;
const PREFIX = '.layercache-export-';
/** The names that may stand in a folder that is to become a layout. */
const HARMLESS = new Set(['blobs', 'lost+found']);

let counter = 0;

/**
 * Writes images into an OCI image layout that is no cache, as other tools do: blobs first, then `index.json`, each by
 * rename. There is no side state. Exports at the same time take turns to edit `index.json`, by a kernel lock on the file
 * `oci-layout`, which is never replaced.
 */
export class PlainLayout {
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  /** @throws LayercacheError `LAYOUT_INVALID` for a folder of something else; errors of the system */
  static async open(dir: string): Promise<PlainLayout> {
    const layout = new PlainLayout(dir);
    await mkdir(dir, { recursive: true });
    const names = await readdir(dir);
    if (names.includes('oci-layout')) return layout;
    if (!names.every((name) => HARMLESS.has(name) || name.startsWith(PREFIX))) {
      // Another export may have made the layout between the two looks.
      if (existsSync(join(dir, 'oci-layout'))) return layout;
      throw new LayercacheError(
        'LAYOUT_INVALID',
        `${dir} has files in it but no oci-layout, so it is not an OCI image layout; choose an empty folder or a layout`,
      );
    }
    await layout.#withTemp(async (temp) => {
      await writeSynced(temp, '{"imageLayoutVersion":"1.0.0"}');
      await link(temp, join(dir, 'oci-layout')).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      });
    });
    return layout;
  }

  /** A blob that is there with that size is not written again. */
  async write(part: Descriptor, image: ExportedImage, signal: AbortSignal | undefined): Promise<void> {
    const folder = join(this.#dir, 'blobs', digestAlgorithm(part.digest));
    const path = join(folder, digestHex(part.digest));
    const size = await stat(path).then(
      (facts) => facts.size,
      () => undefined,
    );
    if (size === part.size) return;
    await mkdir(folder, { recursive: true });
    await this.#withTemp(async (temp) => {
      const file = await open(temp, 'wx');
      try {
        for await (const chunk of image.read(part.digest) as AsyncIterable<Uint8Array>) {
          throwIfAborted(signal);
          await file.appendFile(chunk);
        }
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temp, path);
    });
  }

  /** Adds entries. A name that another image has moves. */
  async put(entries: readonly Descriptor[], signal: AbortSignal | undefined): Promise<void> {
    const path = join(this.#dir, 'index.json');
    await this.#locked(signal, async () => {
      const bytes = existsSync(path) ? await readFile(path) : undefined;
      const before = bytes === undefined ? [] : parseImageIndex(bytes, path).manifests;
      const document: Record<string, unknown> =
        bytes === undefined
          ? { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json' }
          : (JSON.parse(bytes.toString()) as Record<string, unknown>);
      const names = new Set(entries.flatMap((entry) => refName(entry) ?? []));
      const replaced = new Set(entries.map(keyOf));
      const others = before.filter((entry) => !replaced.has(keyOf(entry)));
      const staying = others.map((entry) => (names.has(refName(entry) ?? '') ? withoutName(entry) : entry));
      const manifests = new Map([...staying, ...entries].map((entry) => [keyOf(entry), entry] as const));
      const text = JSON.stringify({ ...document, manifests: [...manifests.values()] });
      await this.#withTemp(async (temp) => {
        await writeSynced(temp, text);
        await rename(temp, path);
      });
    });
  }

  async #locked(signal: AbortSignal | undefined, run: () => Promise<void>): Promise<void> {
    const fd = await nodeFileSystem.open(join(this.#dir, 'oci-layout'), constants.O_RDWR);
    try {
      const deadline = Date.now() + PATIENCE;
      while (!nodeFileSystem.tryLock(fd, 'exclusive')) {
        throwIfAborted(signal);
        if (Date.now() > deadline) {
          throw new LayercacheError(
            'LOCK_TIMEOUT',
            `another process has been writing to ${this.#dir} for ${PATIENCE / 1000} s; try again`,
          );
        }
        await delay(POLL);
      }
      await run();
    } finally {
      await nodeFileSystem.close(fd);
    }
  }

  async #withTemp(run: (path: string) => Promise<void>): Promise<void> {
    const temp = join(this.#dir, `${PREFIX}${process.pid}-${counter++}`);
    try {
      await run(temp);
    } finally {
      await rm(temp, { force: true });
    }
  }
}

function keyOf(entry: Descriptor): string {
  return `${entry.digest} ${refName(entry) ?? ''}`;
}

function withoutName(entry: Descriptor): Descriptor {
  return withAnnotations(entry, { [Annotation.refName]: undefined, [Annotation.containerdName]: undefined });
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}
