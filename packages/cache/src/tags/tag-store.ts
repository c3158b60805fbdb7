import { createHash } from 'node:crypto';
import { isLayercacheError, type Logger } from '@layercache/oci';
import type { OciLayout, SideFolder } from '@layercache/layout';
import { decodeTagRecord, encodeTagRecord, type TagRecord } from './tag-record.js';

/** Bytes. Twenty sightings take about 5 kB. */
const MAX_RECORD_SIZE = 64 * 1024;

/**
 * What is known of tags, one file each in `.layercache/tags/`. Side state: deleting it costs requests and the
 * history, and a file that is not a record counts as absent.
 */
export class TagStore {
  readonly #folder: SideFolder;
  readonly #logger: Logger;

  constructor(layout: OciLayout, logger: Logger) {
    this.#folder = layout.sideFolder('tags', { maxSize: MAX_RECORD_SIZE });
    this.#logger = logger;
  }

  read(name: string): TagRecord | undefined {
    const bytes = this.#folder.read(fileName(name));
    return bytes === undefined ? undefined : decodeTagRecord(name, bytes);
  }

  /**
   * Changes a record: no other process changes it between `change`'s argument and its result. A cache that cannot
   * be written to does without, and then `change` may see what is known now, or nothing.
   */
  async update(
    name: string,
    change: (before: TagRecord) => TagRecord,
  ): Promise<{ readonly before: TagRecord; readonly after: TagRecord }> {
    const decoded = (bytes: Uint8Array | undefined): TagRecord =>
      (bytes === undefined ? undefined : decodeTagRecord(name, bytes)) ?? { name, sightings: [] };
    let before: TagRecord | undefined;
    let after: TagRecord | undefined;
    try {
      await this.#folder.update(fileName(name), (bytes) => {
        before = decoded(bytes);
        after = change(before);
        return after === before ? undefined : encodeTagRecord(after);
      });
    } catch (error) {
      if (!isLayercacheError(error, 'STORAGE', 'LOCK_TIMEOUT', 'CACHE_FULL')) throw error;
      this.#logger.debug({ message: 'tag not recorded', reference: name, error: error.message });
    }
    before ??= decoded(this.#folder.read(fileName(name)));
    return { before, after: after ?? change(before) };
  }

  close(): void {
    this.#folder.close();
  }
}

/** A reference is from outside, and may be longer than a file's name. */
function fileName(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}
