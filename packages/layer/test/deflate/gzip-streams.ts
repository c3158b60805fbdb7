import { constants, crc32, deflateRawSync, gzipSync } from 'node:zlib';

/** Bytes that compress like a layer does: runs, repeated words, and noise, in changing proportion. */
export function compressible(size: number, seed = 1): Buffer {
  const out = Buffer.alloc(size);
  let state = seed >>> 0;
  const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  for (let at = 0; at < size;) {
    const kind = random() >>> 29;
    const length = Math.min(size - at, 1 + ((random() >>> 16) % 3000));
    if (kind < 2 && at > 40000) out.copy(out, at, at - 1 - ((random() >>> 8) % 32000), at + length);
    else if (kind < 4) out.fill(random() >>> 24, at, at + length);
    else if (kind < 7) for (let i = 0; i < length; i++) out[at + i] = 97 + ((random() >>> 20) & 15);
    else for (let i = 0; i < length; i++) out[at + i] = random() >>> 24;
    at += length;
  }
  return out;
}

/** The gzip streams a registry holds: levels, strategies, several members, flushes, odd headers. */
export function gzipVariants(data: Buffer): Readonly<Record<string, Buffer>> {
  const half = data.length >>> 1;
  return {
    'level 0': gzipSync(data, { level: 0 }),
    'level 1': gzipSync(data, { level: 1 }),
    'level 6': gzipSync(data),
    'level 9': gzipSync(data, { level: 9 }),
    'small blocks': gzipSync(data, { memLevel: 1 }),
    'fixed codes': gzipSync(data, { strategy: constants.Z_FIXED }),
    'literals only': gzipSync(data, { strategy: constants.Z_HUFFMAN_ONLY }),
    'runs only': gzipSync(data, { strategy: constants.Z_RLE }),
    'two members': Buffer.concat([gzipSync(data.subarray(0, half)), gzipSync(data.subarray(half))]),
    'an empty member first': Buffer.concat([gzipSync(''), gzipSync(data)]),
    'zeros behind it': Buffer.concat([gzipSync(data), Buffer.alloc(1000)]),
    'a long header': withHeader(data),
  };
}

/** A member with every optional field of RFC 1952. */
function withHeader(data: Buffer): Buffer {
  const extra = Buffer.alloc(300, 7);
  const length = Buffer.from([extra.length & 255, extra.length >>> 8]);
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 255]),
    length,
    extra,
    Buffer.from('layer.tar\0a comment\0'),
  ]);
  const checksum = crc32(header);
  return Buffer.concat([
    header,
    Buffer.from([checksum & 255, (checksum >>> 8) & 255]),
    deflateRawSync(data),
    gzipSync(data).subarray(-8),
  ]);
}
