import { isUtf8 } from 'node:buffer';

/*
 * Names in a tar are bytes: mostly UTF-8, by no rule. Here they are strings that lose nothing. What is valid
 * UTF-8 is decoded as usual; each byte that is not becomes one lone surrogate, U+DC80 to U+DCFF, which no valid
 * UTF-8 decodes to. (Python does the same: PEP 383, "surrogateescape".)
 */

/** With the flag `u`, the halves of a pair do not count. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** A string for any bytes; `encodeBytes` gives the bytes back. */
export function decodeBytes(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(buffer)) return buffer.toString('utf8');
  const parts: string[] = [];
  for (let at = 0; at < buffer.length;) {
    const size = sequenceSize(buffer, at);
    if (size === 0) parts.push(String.fromCharCode(0xdc00 + buffer.readUInt8(at)));
    else parts.push(buffer.toString('utf8', at, at + size));
    at += Math.max(1, size);
  }
  return parts.join('');
}

/** The bytes that `decodeBytes` made the string of. */
export function encodeBytes(text: string): Buffer {
  if (!LONE_SURROGATE.test(text)) return Buffer.from(text, 'utf8');
  const parts: Buffer[] = [];
  for (const character of text) {
    const code = character.charCodeAt(0);
    const escaped = character.length === 1 && code >= 0xdc80 && code <= 0xdcff;
    parts.push(escaped ? Buffer.from([code - 0xdc00]) : Buffer.from(character, 'utf8'));
  }
  return Buffer.concat(parts);
}

/** Below it, code units of JavaScript's strings are in the order of the UTF-8 that they stand for. */
const FIRST_SURROGATE = 0xd800;

/** The order of the bytes, which is not that of JavaScript's strings. */
export function compareBytes(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const left = a.charCodeAt(at);
    const right = b.charCodeAt(at);
    if (left === right) continue;
    if (left < FIRST_SURROGATE && right < FIRST_SURROGATE) return left < right ? -1 : 1;
    return Buffer.compare(encodeBytes(a), encodeBytes(b));
  }
  return Math.sign(a.length - b.length);
}

/** Length of the valid UTF-8 sequence that starts here; 0 when none does. */
function sequenceSize(bytes: Buffer, at: number): number {
  const first = bytes.readUInt8(at);
  const size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const end = at + size;
  return end <= bytes.length && isUtf8(bytes.subarray(at, end)) ? size : 0;
}
