import { LayercacheError } from '@layercache/oci';
import type { ExportTarget } from './export-target.js';
import { DockerArchiveTarget } from './docker-archive-target.js';
import { LayoutTarget } from './layout-target.js';
import { OciArchiveTarget } from './oci-archive-target.js';

/**
 * Opens `oci:DIR[:name]`, `oci-archive:FILE[:name]` or `docker-archive:FILE[:name]`. The name is the one the
 * image gets there; without it, it keeps its own.
 *
 * @throws LayercacheError `USAGE`
 */
export function openTarget(text: string): {
  readonly target: ExportTarget;
  readonly name: string | undefined;
} {
  const [, transport = '', path = '', name] = /^([a-z-]+):([^:]+)(?::(.+))?$/s.exec(text) ?? [];
  switch (transport) {
    case 'oci':
      return { target: new LayoutTarget(path), name };
    case 'oci-archive':
      return { target: new OciArchiveTarget(path), name };
    case 'docker-archive':
      return { target: new DockerArchiveTarget(path), name };
    default:
      throw new LayercacheError(
        'USAGE',
        `"${text}" is not a place to export to: expected oci:DIR, oci-archive:FILE or docker-archive:FILE`,
      );
  }
}
