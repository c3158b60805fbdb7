import type { Timestamp } from '../tar/entry.js';

/** Text for a line of output: whatever could end the line, or move a terminal's cursor, is escaped. */
export function escapeControls(text: string): string {
  return text.replace(/[\\\p{Cc}\p{Surrogate}]/gu, (character) => {
    const code = character.charCodeAt(0);
    if (character === '\\') return '\\\\';
    return `\\x${(code & 0xff).toString(16).padStart(2, '0')}`;
  });
}

/** Seconds since 1970 in decimal, with all nine digits of the fraction: `-2.500000000` is 2.5 s before 1970. */
export function decimalTime({ seconds, nanoseconds }: Timestamp): string {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const digits = String(total < 0n ? -total : total).padStart(10, '0');
  return `${total < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}
