/** A registry of images that are made as they are asked for: layers that do not compress, of any size and number. */
import { createCipheriv, createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { crc32 } from 'node:zlib';
import { LayercacheError, MediaType, digestOf } from '@layercache/oci';

const MiB = 1024 * 1024;
/** Bytes of a stored block of deflate, whose header has five. */
const BLOCK = 65_535;

/** The tar of layer `n`: one file of bytes that only its number tells. */
function* tarBlocks(n, size) {
  const header = Buffer.alloc(512);
  header.write(`layer-${n}`, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0' + '00', 257);
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  yield header;
  const cipher = createCipheriv(
    'aes-128-ctr',
    Buffer.alloc(16, n & 255),
    Buffer.from(`${n}`.padStart(16, '0')),
  );
  const zeros = Buffer.alloc(MiB);
  for (let left = size; left > 0; left -= MiB) yield cipher.update(zeros.subarray(0, Math.min(left, MiB)));
  yield Buffer.alloc(1024);
}

/** The same as gzip, of stored blocks. */
function* gzipBlocks(n, size) {
  yield Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
  let crc = 0;
  let length = 0;
  for (const bytes of tarBlocks(n, size)) {
    crc = crc32(bytes, crc);
    length += bytes.length;
    const parts = [];
    for (let at = 0; at < bytes.length; at += BLOCK) {
      const block = bytes.subarray(at, at + BLOCK);
      const head = Buffer.from([0, 0, 0, 0, 0]);
      head.writeUInt16LE(block.length, 1);
      head.writeUInt16LE(block.length ^ 0xffff, 3);
      parts.push(head, block);
    }
    yield Buffer.concat(parts);
  }
  const end = Buffer.from([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
  end.writeUInt32LE(crc, 5);
  end.writeUInt32LE(length >>> 0, 9);
  yield end;
}

function makeLayer(n, size) {
  const digest = createHash('sha256');
  const diffID = createHash('sha256');
  let bytes = 0;
  for (const part of gzipBlocks(n, size)) {
    digest.update(part);
    bytes += part.length;
  }
  for (const part of tarBlocks(n, size)) diffID.update(part);
  return {
    n,
    size,
    descriptor: { mediaType: MediaType.layerGzip, digest: `sha256:${digest.digest('hex')}`, size: bytes },
    diffID: `sha256:${diffID.digest('hex')}`,
  };
}

/** Images of one shared layer and one of their own. Counts the bytes that leave it. */
export class SyntheticRegistry {
  images = [];
  bytes = 0;
  #layers = new Map();
  #documents = new Map();

  constructor({ images, ownSize, bases, baseSize }) {
    const shared = Array.from({ length: bases }, (_, n) => makeLayer(1_000_000 + n, baseSize));
    for (let n = 0; n < images; n++) {
      const layers = [shared[n % bases], makeLayer(n, ownSize(n))];
      for (const layer of layers) this.#layers.set(layer.descriptor.digest, layer);
      const config = this.#document(MediaType.config, {
        os: 'linux',
        architecture: 'amd64',
        config: { n },
        rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffID) },
      });
      const manifest = this.#document(MediaType.manifest, {
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config,
        layers: layers.map((layer) => layer.descriptor),
      });
      this.images.push({ name: `bench.test/app:${n}`, manifest, layers });
    }
  }

  #document(mediaType, value) {
    const bytes = Buffer.from(JSON.stringify(value));
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    this.#documents.set(descriptor.digest, { descriptor, bytes });
    return descriptor;
  }

  async resolve(_repository, reference) {
    const image = this.images[Number(reference)];
    const found = image?.manifest ?? this.#documents.get(reference)?.descriptor;
    if (found === undefined) throw new LayercacheError('NOT_FOUND', `no ${reference}`);
    return found;
  }

  async fetchManifest(_repository, reference) {
    const { descriptor, bytes } = this.#documents.get(reference);
    this.bytes += bytes.length;
    return { descriptor, bytes };
  }

  async fetchBlob(_repository, digest) {
    const document = this.#documents.get(digest);
    const layer = this.#layers.get(digest);
    const parts = document === undefined ? gzipBlocks(layer.n, layer.size) : [document.bytes];
    const count = (bytes) => (this.bytes += bytes.length);
    return {
      size: document?.bytes.length ?? layer.descriptor.size,
      offset: 0,
      body: Readable.from(
        (function* () {
          for (const part of parts) {
            count(part);
            yield part;
          }
        })(),
        { objectMode: false },
      ),
    };
  }
}
