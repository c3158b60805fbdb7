import { encodeBytes } from '../../src/tar/byte-string.js';

export interface EntryOptions {
  readonly name: string;
  readonly data?: Uint8Array | string;
  readonly type?: string;
  readonly linkname?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly uname?: string;
  readonly gname?: string;
  readonly mtime?: number;
  readonly devmajor?: number;
  readonly devminor?: number;
  readonly prefix?: string;
  /** What the header says, whatever `data` is. */
  readonly size?: number;
  readonly magic?: string;
  readonly pax?: Readonly<Record<string, string | Uint8Array>>;
  /** Last changes to the header before its checksum. */
  readonly patch?: (header: Buffer) => void;
}

/** A number in octal, or in base 256 where it does not fit. */
function putNumber(header: Buffer, value: number, at: number, size: number): void {
  const octal = value < 0 ? '' : value.toString(8);
  if (value >= 0 && octal.length < size) {
    header.write(octal.padStart(size - 1, '0'), at, 'latin1');
    return;
  }
  let rest = BigInt(value);
  for (let index = at + size - 1; index >= at; index--) {
    header[index] = Number(rest & 255n);
    rest >>= 8n;
  }
  header[at]! |= 0x80;
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)]);
}

export function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([
    Buffer.from(' '),
    encodeBytes(key),
    Buffer.from('='),
    typeof value === 'string' ? encodeBytes(value) : value,
    Buffer.from('\n'),
  ]);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

export function paxHeader(records: Readonly<Record<string, string | Uint8Array>>, type = 'x'): Buffer {
  return entry({
    name: 'PaxHeaders/entry',
    type,
    data: Buffer.concat(Object.entries(records).map(([key, value]) => paxRecord(key, value))),
  });
}

/** One entry: its pax header if it needs one, its header block, its data with padding. */
export function entry(options: EntryOptions): Buffer {
  const data =
    typeof options.data === 'string' ? Buffer.from(options.data) : (options.data ?? Buffer.alloc(0));
  const header = Buffer.alloc(512);
  const type = options.type ?? (options.name.endsWith('/') ? '5' : '0');
  header.set(encodeBytes(options.name).subarray(0, 100), 0);
  putNumber(header, options.mode ?? (type === '5' ? 0o755 : 0o644), 100, 8);
  putNumber(header, options.uid ?? 0, 108, 8);
  putNumber(header, options.gid ?? 0, 116, 8);
  putNumber(header, options.size ?? data.length, 124, 12);
  putNumber(header, options.mtime ?? 1_700_000_000, 136, 12);
  header.write(type, 156, 'latin1');
  header.set(encodeBytes(options.linkname ?? '').subarray(0, 100), 157);
  header.write(options.magic ?? 'ustar\u000000', 257, 'latin1');
  header.set(encodeBytes(options.uname ?? ''), 265);
  header.set(encodeBytes(options.gname ?? ''), 297);
  putNumber(header, options.devmajor ?? 0, 329, 8);
  putNumber(header, options.devminor ?? 0, 337, 8);
  header.set(encodeBytes(options.prefix ?? ''), 345);
  options.patch?.(header);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const pax: Record<string, string | Uint8Array> = { ...options.pax };
  if (encodeBytes(options.name).length > 100 && pax.path === undefined) pax.path = options.name;
  if (encodeBytes(options.linkname ?? '').length > 100 && pax.linkpath === undefined) {
    pax.linkpath = options.linkname ?? '';
  }
  const extended = Object.keys(pax).length === 0 ? [] : [paxHeader(pax)];
  return Buffer.concat([...extended, header, padded(data)]);
}

/** GNU's way to say a long name (`L`) or link (`K`). */
export function gnuLong(type: 'L' | 'K', text: string): Buffer {
  const data = Buffer.concat([encodeBytes(text), Buffer.alloc(1)]);
  return entry({ name: '././@LongLink', type, data, magic: 'ustar  \0' });
}

/** Entries, and the two blocks of zeros that end an archive. */
export function tar(...entries: readonly (EntryOptions | Uint8Array)[]): Buffer {
  const parts = entries.map((each) => (each instanceof Uint8Array ? each : entry(each)));
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}
