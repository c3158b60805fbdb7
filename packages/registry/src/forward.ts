import type { Registry } from './registry.js';

/** Every operation, passed on. Spread it to make a registry that differs in some of them. */
export function forward(to: Registry): Registry {
  return {
    resolve: (...all) => to.resolve(...all),
    fetchManifest: (...all) => to.fetchManifest(...all),
    blobSize: (...all) => to.blobSize(...all),
    fetchBlob: (...all) => to.fetchBlob(...all),
    pushBlob: (...all) => to.pushBlob(...all),
    mountBlob: (...all) => to.mountBlob(...all),
    pushManifest: (...all) => to.pushManifest(...all),
    tag: (...all) => to.tag(...all),
    deleteManifest: (...all) => to.deleteManifest(...all),
    deleteBlob: (...all) => to.deleteBlob(...all),
    tags: (...all) => to.tags(...all),
    repositories: (...all) => to.repositories(...all),
    referrers: (...all) => to.referrers(...all),
    openSpool: to.openSpool?.bind(to),
  };
}
