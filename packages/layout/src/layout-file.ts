import { join } from 'node:path';
import { z } from 'zod';
import { LayercacheError, isLayercacheError, parseDocument } from '@layercache/oci';
import { isSystemError, type FileSystem } from './file-system.js';

export const LAYOUT_VERSION = '1.0.0';

const layoutFileSchema = z.looseObject({ imageLayoutVersion: z.string() });

/** The names that may stand in a folder that is to become a layout: a creation that did not get far, an empty volume. */
const HARMLESS = new Set(['.layercache', 'blobs', 'lost+found']);

/**
 * Looks whether a folder is a layout (image-layout.md, "oci-layout file").
 *
 * @returns false when nothing is there, and a layout may be made
 * @throws LayercacheError `LAYOUT_INVALID` for a folder of something else, or a version that is not known
 */
export function checkLayoutFile(files: FileSystem, dir: string): boolean {
  const path = join(dir, 'oci-layout');
  let bytes = readIfThere(files, dir, path);
  if (bytes === undefined) {
    if (isVacant(files, dir)) return false;
    // Another process may have made the layout between the two looks.
    bytes = readIfThere(files, dir, path);
  }
  if (bytes === undefined) {
    throw new LayercacheError(
      'LAYOUT_INVALID',
      `${dir} has files in it but no oci-layout, so it is not an OCI image layout; choose an empty folder or a layout, or restore the file with verify --repair`,
    );
  }
  let version: string;
  try {
    version = parseDocument(layoutFileSchema, bytes, path).imageLayoutVersion;
  } catch (error) {
    if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
    throw new LayercacheError('LAYOUT_INVALID', error.message, { cause: error });
  }
  if (version !== LAYOUT_VERSION) {
    throw new LayercacheError(
      'LAYOUT_INVALID',
      `${dir} is an OCI image layout of version ${JSON.stringify(version)}, this program knows ${LAYOUT_VERSION}; use a newer program or another folder`,
    );
  }
  return true;
}

/** Whether the bytes are an `oci-layout` file, of whatever version. */
export function isLayoutFile(bytes: Uint8Array | undefined): boolean {
  if (bytes === undefined) return false;
  try {
    parseDocument(layoutFileSchema, bytes, 'oci-layout');
    return true;
  } catch (error) {
    if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
    return false;
  }
}

export const layoutFileText = `{"imageLayoutVersion":"${LAYOUT_VERSION}"}`;

function readIfThere(files: FileSystem, dir: string, path: string): Buffer | undefined {
  try {
    return files.readFileSync(path);
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return undefined;
    if (!isSystemError(error, 'ENOTDIR')) throw error;
    throw new LayercacheError('LAYOUT_INVALID', `${dir} is not a folder; choose another`, { cause: error });
  }
}

function isVacant(files: FileSystem, dir: string): boolean {
  try {
    return files.readdirSync(dir).every((name) => HARMLESS.has(name));
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return true;
    throw error;
  }
}
