import fc from 'fast-check';
import { Annotation, MediaType, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import { layerOf, tarOf, type BuiltLayer } from '../image-builder.js';

/**
 * Annotations of a stranger who knows how this cache works: every one that means anything in an entry, with values
 * that would do harm if they were believed.
 */
export function hostileAnnotations(
  names: readonly string[],
  digests: readonly Digest[],
): fc.Arbitrary<Record<string, string>> {
  const digest = fc.constantFrom(...digests, digestOf('nothing'));
  const nasty = fc.constantFrom('', 'x\u001b]52;c;ZXZpbA==\u0007', '../../etc/passwd', 'a'.repeat(5000));
  const values: Record<string, fc.Arbitrary<string>> = {
    [Annotation.refName]: fc.oneof(fc.constantFrom(...names, 'layercache'), digest, nasty),
    [Annotation.containerdName]: fc.oneof(fc.constantFrom(...names, 'layercache'), digest),
    [Annotation.nameState]: fc.constantFrom('claimed', ''),
    [Annotation.pinned]: fc.constantFrom('true', 'false'),
    [Annotation.expires]: fc.constantFrom('1999-01-01T00:00:00.000Z', '', 'soon'),
    [Annotation.diffID]: fc.oneof(digest, nasty),
    'dev.ggcr.cache.diffid': digest,
    'containerd.io/uncompressed': digest,
    [Annotation.digest]: fc.array(digest, { maxLength: 3 }).map((list) => list.join(',')),
    'dev.ggcr.cache.digest': digest,
    [Annotation.sociLayerDigest]: digest,
    [Annotation.indexedImage]: digest,
    [Annotation.files]: fc.constantFrom('0', '999999999', '-1', '1e9'),
    'dev.layercache.shard': fc.constantFrom('', '0', '1'),
    'dev.layercache.entries': fc.constant('0'),
    'containerd.io/distribution.source.evil.example': fc.constantFrom(
      'steal',
      'http://evil.example/steal',
      '../x',
    ),
    'containerd.io/distribution.source.registry.test': fc.constantFrom('evil', 'good'),
    [`x-${'y'.repeat(100)}`]: nasty,
  };
  return fc.record(values, { requiredKeys: [] }).map((chosen) => chosen as Record<string, string>);
}

/** A media type that a stranger may give to a blob which is something else. */
const mediaTypes = fc.constantFrom(
  MediaType.octetStream,
  MediaType.layerGzip,
  MediaType.layerZstd,
  MediaType.config,
  MediaType.empty,
  'application/vnd.cncf.helm.chart.content.v1.tar+gzip',
);

export interface HostileImage {
  /** Bytes of its manifest. */
  readonly manifest: Uint8Array;
  readonly layers: readonly BuiltLayer[];
  readonly config: { readonly descriptor: Descriptor; readonly bytes: Uint8Array };
}

/**
 * An image or artifact whose manifest lists blobs of other images beside its own, each with hostile annotations and
 * fields, and under a media type of its choice.
 */
export function hostileImage(
  names: readonly string[],
  victims: readonly BuiltLayer[],
  digests: readonly Digest[],
): fc.Arbitrary<HostileImage> {
  const annotations = hostileAnnotations(names, digests);
  const extra = fc.record(
    {
      annotations,
      data: fc.constantFrom('', 'eA==', 'not base64'),
      artifactType: fc.constantFrom('application/vnd.layercache.cache.v1', 'x/y'),
      future: fc.jsonValue({ maxDepth: 3 }),
    },
    { requiredKeys: ['annotations'] },
  );
  return fc
    .record({
      seed: fc.integer({ min: 0, max: 1e9 }),
      stolen: fc.subarray([...victims], { minLength: 1 }),
      asImage: fc.boolean(),
      lies: fc.boolean(),
      extras: fc.array(extra, { minLength: 8, maxLength: 8 }),
      types: fc.array(mediaTypes, { minLength: 8, maxLength: 8 }),
      own: annotations,
    })
    .map(({ seed, stolen, asImage, lies, extras, types, own }) => {
      const layers = [...stolen, layerOf(tarOf({ evil: `${seed}` }))];
      const diffIDs = layers.map((layer) => (lies ? digestOf(`lie ${seed}`) : layer.diffID));
      const bytes = Buffer.from(
        JSON.stringify(
          asImage
            ? { architecture: 'amd64', os: 'linux', seed, rootfs: { type: 'layers', diff_ids: diffIDs } }
            : { seed },
        ),
      );
      const described = layers.map(({ descriptor }, at) => ({
        ...descriptor,
        ...(asImage ? {} : { mediaType: types[at % types.length] }),
        ...extras[at % extras.length],
      }));
      const config = {
        mediaType: asImage ? MediaType.config : 'application/vnd.evil.config.v1+json',
        digest: digestOf(bytes),
        size: bytes.length,
      };
      const manifest = {
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config: { ...config, ...extras.at(-1) },
        layers: described,
        annotations: own,
      };
      return {
        manifest: Buffer.from(JSON.stringify(manifest)),
        layers,
        config: { descriptor: config, bytes },
      };
    });
}
