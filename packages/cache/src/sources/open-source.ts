import { Annotation, LayercacheError, refName, type Descriptor } from '@layercache/oci';
import { formatReference, parseReference, type Registry } from '@layercache/registry';
import { openDockerArchive, openOciArchive } from './archive-source.js';
import type { ImageSource } from './image-source.js';
import { openLayoutStore } from './layout-source.js';
import { StoredImageReader, type ImageStore } from './stored-image.js';

/** How to reach the registry of a host name. */
export type RegistryFactory = (host: string) => Registry;

const openers: Readonly<Record<string, (path: string) => Promise<ImageStore & { close?(): Promise<void> }>>> =
  {
    oci: openLayoutStore,
    'oci-archive': openOciArchive,
    'docker-archive': openDockerArchive,
  };

/**
 * Opens `oci:DIR[:name]`, `oci-archive:FILE[:name]`, `docker-archive:FILE[:name]`, or an image reference with
 * or without `docker://`.
 *
 * @throws LayercacheError `REFERENCE_INVALID`, `NOT_FOUND`, `LAYOUT_INVALID`, `ARCHIVE_INVALID`
 */
export async function openSource(text: string, registryOf: RegistryFactory): Promise<ImageSource> {
  const stored = /^(oci|oci-archive|docker-archive):([^:]+)(?::(.*))?$/s.exec(text);
  const [, transport = '', path = '', tag = ''] = stored ?? [];
  const opener = openers[transport];
  if (opener === undefined) return openRegistrySource(text, registryOf);
  const store = await opener(path);
  const close = async (): Promise<void> => {
    await store.close?.();
  };
  try {
    const descriptor = await store.resolve(tag);
    return {
      label: text,
      reader: new StoredImageReader(store),
      repository: '',
      reference: tag,
      name: nameOf(descriptor),
      origin: undefined,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function openRegistrySource(text: string, registryOf: RegistryFactory): ImageSource {
  const reference = parseReference(text.replace(/^docker:\/\//, ''));
  const target = reference.digest ?? reference.tag;
  if (target === undefined) {
    throw new LayercacheError('REFERENCE_INVALID', `${text} names no tag and no digest`);
  }
  return {
    label: text,
    reader: registryOf(reference.registry),
    repository: reference.repository,
    reference: target,
    name: formatReference(reference),
    origin: { registry: reference.registry, repository: reference.repository },
    close: () => Promise.resolve(),
  };
}

function nameOf(descriptor: Descriptor): string | undefined {
  return descriptor.annotations?.[Annotation.containerdName] ?? refName(descriptor);
}
