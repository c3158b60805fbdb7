import { forward } from './forward.js';
import { RegistryError } from './registry-error.js';
import type { Registry } from './registry.js';

/** The same registry for readers. What would change it is refused with `UNSUPPORTED`. */
export function readOnly(registry: Registry): Registry {
  const refuse = (): Promise<never> =>
    Promise.reject(
      new RegistryError('UNSUPPORTED', 'this registry is read-only', {
        status: 405,
        reported: [{ code: 'UNSUPPORTED', message: 'this registry is read-only' }],
      }),
    );
  return {
    ...forward(registry),
    pushBlob: refuse,
    mountBlob: refuse,
    pushManifest: refuse,
    tag: refuse,
    deleteManifest: refuse,
    deleteBlob: refuse,
  };
}
