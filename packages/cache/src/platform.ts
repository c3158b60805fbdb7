import { LayercacheError, type Descriptor, type Platform } from '@layercache/oci';

/** Go's names, which image indexes use, for what Node calls `process.arch`. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: '386',
  arm64: 'arm64',
  arm: 'arm',
};

/** Linux on this machine's processor: what an image is wanted for unless something else is said. */
export function hostPlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };
}

/**
 * `os/arch` or `os/arch/variant`.
 *
 * @throws LayercacheError `USAGE`
 */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.split('/');
  if (!os || !architecture || variant === '' || rest.length > 0) {
    throw new LayercacheError(
      'USAGE',
      `"${text}" is not a platform: expected os/arch or os/arch/variant, as in linux/arm64`,
    );
  }
  return variant === undefined ? { os, architecture } : { os, architecture, variant };
}

export function formatPlatform(platform: Platform): string {
  return [
    platform.os,
    platform.architecture,
    ...(platform.variant === undefined ? [] : [platform.variant]),
  ].join('/');
}

/** The variant that an architecture without one stands for (containerd's normalization). */
function normalizedVariant(platform: Platform): string | undefined {
  if (platform.variant !== undefined) return platform.variant;
  if (platform.architecture === 'arm64') return 'v8';
  if (platform.architecture === 'arm') return 'v7';
  return undefined;
}

export function platformMatches(wanted: Platform, offered: Platform): boolean {
  return (
    wanted.os === offered.os &&
    wanted.architecture === offered.architecture &&
    (wanted.variant === undefined && wanted.architecture !== 'arm'
      ? true
      : normalizedVariant(wanted) === normalizedVariant(offered))
  );
}

/**
 * The first manifest of an index for a platform, as image-index.md asks clients to choose.
 *
 * @throws LayercacheError `PLATFORM_NOT_FOUND`, with the platforms that are there
 */
export function selectPlatform(
  manifests: readonly Descriptor[],
  wanted: Platform,
  image: string,
): Descriptor {
  const found = manifests.find(
    (each) => each.platform !== undefined && platformMatches(wanted, each.platform),
  );
  if (found !== undefined) return found;
  const offered = manifests.flatMap((each) =>
    each.platform === undefined ? [] : [formatPlatform(each.platform)],
  );
  throw new LayercacheError(
    'PLATFORM_NOT_FOUND',
    `${image} has nothing for ${formatPlatform(wanted)}; it has ${offered.length === 0 ? 'no platforms' : [...new Set(offered)].join(', ')}`,
  );
}
