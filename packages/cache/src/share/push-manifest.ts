import { setTimeout as sleep } from 'node:timers/promises';
import type { Descriptor } from '@layercache/oci';
import { RegistryError, type PushManifestOptions, type Registry } from '@layercache/registry';

const ATTEMPTS = 5;
/** Milliseconds before the second attempt; more before each further one. */
const PAUSE = 50;

/**
 * Pushes a manifest whose parts are known to be there. distribution's file storage writes the link of a blob in
 * place: while another client pushes the same blob, the registry finds that link empty and calls the blob unknown.
 */
export async function pushManifest(
  registry: Registry,
  repository: string,
  manifest: { readonly descriptor: Descriptor; readonly bytes: Uint8Array },
  options: PushManifestOptions,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await registry.pushManifest(repository, manifest.descriptor.mediaType, manifest.bytes, options);
      return;
    } catch (error) {
      if (attempt === ATTEMPTS || !saysUnknown(error)) throw error;
      await sleep(PAUSE * attempt * (1 + Math.random()), undefined, { signal: options.signal });
    }
  }
}

/** Whether a registry refused a manifest because it does not have a part of it. */
export function saysUnknown(error: unknown): boolean {
  return (
    error instanceof RegistryError &&
    error.reported.some(({ code }) => code === 'MANIFEST_BLOB_UNKNOWN' || code === 'MANIFEST_UNKNOWN')
  );
}
