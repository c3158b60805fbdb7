/**
 * Characters that show nothing of their own and change what is shown: controls (C0, DEL, C1), directions and other
 * formats (bidi overrides, zero-width characters, tags), line separators, fillers, halves of surrogate pairs. Names
 * and messages come from registries and images, and a terminal would obey them.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** Text for one line: each unseen character, a line break among them, is written as `\x1b`, `\u202e` or `\u{e0001}`. */
export function escapeLine(text: string): string {
  return text.replace(UNSEEN, shown);
}

/** Text of several lines: as {@link escapeLine}, and line breaks stay. */
export function escapeLines(text: string): string {
  return text.replace(UNSEEN, (character) => (character === '\n' ? character : shown(character)));
}

/** JSON that is the same value and has its unseen characters as `\u001b`; line breaks between values stay. */
export function escapeJson(json: string): string {
  return json.replace(UNSEEN, (character) =>
    character === '\n'
      ? character
      : Array.from({ length: character.length }, (_, at) => `\\u${hex(character.charCodeAt(at), 4)}`).join(
          '',
        ),
  );
}

function shown(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x100) return `\\x${hex(code, 2)}`;
  return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\u{${hex(code, 1)}}`;
}

function hex(code: number, width: number): string {
  return code.toString(16).padStart(width, '0');
}
