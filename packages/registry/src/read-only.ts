import { forward } from './forward.js';
import { RegistryError } from './registry-error.js';
import type { Registry } from './registry.js';

const readers = new WeakSet<Registry>();

/** Whether a registry was made by {@link readOnly}. */
export function isReadOnly(registry: Registry): boolean {
  return readers.has(registry);
}

/** The same registry for readers. Every operation that would change it is refused with `UNSUPPORTED`. */
export function readOnly(registry: Registry): Registry {
  const refuse = (): Promise<never> =>
    Promise.reject(
      new RegistryError('UNSUPPORTED', 'this registry is read-only', {
        status: 405,
        reported: [{ code: 'UNSUPPORTED', message: 'this registry is read-only' }],
      }),
    );
  const reader: Registry = {
    ...forward(registry),
    pushBlob: refuse,
    mountBlob: refuse,
    pushManifest: refuse,
    tag: refuse,
    deleteManifest: refuse,
    deleteBlob: refuse,
    openSpool: refuse,
  };
  readers.add(reader);
  return reader;
}
