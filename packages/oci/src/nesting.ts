/** How deep arrays and objects of a JSON document may be nested. Image documents need less than ten levels. */
export const MAX_NESTING = 64;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Whether the arrays and objects of a JSON text are nested deeper than {@link MAX_NESTING}. Looks at brackets outside
 * of strings only, in one pass over the bytes, so it can run before anything parses the text: code that walks a value
 * by recursion must never meet one that is deeper than the stack.
 */
export function isNestedTooDeep(json: Uint8Array): boolean {
  let depth = 0;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at];
    if (byte === QUOTE) {
      for (at++; at < json.length && json[at] !== QUOTE; at++) if (json[at] === BACKSLASH) at++;
    } else if (byte === 0x5b || byte === 0x7b) {
      if (++depth > MAX_NESTING) return true;
    } else if (byte === 0x5d || byte === 0x7d) depth--;
  }
  return false;
}
