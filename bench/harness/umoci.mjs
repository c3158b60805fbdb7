// The ground truth of another program: umoci unpacks the image as root, and the file system says what there is.
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { listingOfFolder } from './listing.mjs';

export const hasUmoci = spawnSync('umoci', ['--version']).status === 0;
/** Others may not give files away. */
export const isRoot = process.geteuid?.() === 0;

export function listingOfUmoci(layout, name, folder) {
  const bundle = join(folder, 'umoci');
  const { status, stderr } = spawnSync('umoci', ['unpack', '--image', `${layout}:${name}`, bundle], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`umoci cannot unpack ${layout}: ${stderr.trim()}`);
  const listing = listingOfFolder(join(bundle, 'rootfs'));
  rmSync(bundle, { recursive: true });
  return listing;
}
