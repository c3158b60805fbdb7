import { createHash } from 'node:crypto';

export const sha256 = (text) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

/** The two forms of layer `n`. There are no bytes behind them. */
export function layerPair(n) {
  const [digest, diffID] = [sha256(`gzip ${n}`), sha256(`tar ${n}`)];
  return {
    digest,
    diffID,
    descriptors: [
      {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest,
        size: 28565893,
        annotations: { 'dev.layercache.diffid': diffID },
      },
      {
        mediaType: 'application/vnd.oci.image.layer.v1.tar',
        digest: diffID,
        size: 75271168,
        annotations: { 'dev.layercache.digest': digest },
      },
    ],
  };
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
