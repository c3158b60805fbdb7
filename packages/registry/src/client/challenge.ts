/** One way in which a registry says it wants to be authenticated to (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** In lower case: `basic`, `bearer`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const BLANK = /[ \t]*/y;
/** What may follow a scheme in place of parameters (`token68`): `Negotiate YIIB==`. */
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)/y;

/** Reads `WWW-Authenticate`, which may hold several challenges. What does not follow the grammar ends it. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let position = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = position;
    const match = pattern.exec(header);
    if (match === null) return undefined;
    position = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  while (position < header.length) {
    take(BLANK);
    const word = take(TOKEN);
    if (word === undefined) {
      if (header.charAt(position) !== ',') break;
      position += 1;
      continue;
    }
    take(BLANK);
    const current = challenges.at(-1);
    if (header.charAt(position) === '=' && current !== undefined) {
      position += 1;
      take(BLANK);
      const value = take(QUOTED)?.replace(/\\(.)/g, '$1') ?? take(TOKEN);
      if (value === undefined) break;
      current.parameters.set(word.toLowerCase(), value);
    } else {
      challenges.push({ scheme: word.toLowerCase(), parameters: new Map() });
      take(TOKEN68);
    }
  }
  return challenges;
}
