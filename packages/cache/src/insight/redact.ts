import { homedir, hostname, userInfo } from 'node:os';

/** Who must not be found in what is given away. */
export interface Identity {
  readonly home: string;
  readonly user: string;
  readonly host: string;
}

export function ownIdentity(): Identity {
  return { home: homedir(), user: userInfo().username, host: hostname() };
}

const REMOVED = '[redacted]';

/** Names that say nothing about anybody, and are words of ordinary paths and messages. */
const COMMON = new Set(['', 'root', 'user', 'node', 'runner', 'nobody', 'app', 'localhost']);

/** No name or message is longer, and searching what is would take its time. */
const LONGEST = 1000;

/** What is a secret by its looks alone, wherever it stands. */
const SECRETS: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // A URL keeps scheme, host and path.
  [/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/?#]*@/gi, `$1${REMOVED}@`],
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s?#"']*)[?#][^\s"']*/gi, `$1?${REMOVED}`],
  // user:password@host without a scheme. A name with tag and digest, `app:1@sha256:…`, looks like it.
  [/[^\s/@:"']+:[^\s/@"']+@(?!sha(?:256|512):)/g, `${REMOVED}@`],
  [/\b(bearer|basic)\s+[\w.~+/=-]{4,}/gi, `$1 ${REMOVED}`],
  [/\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)*/g, REMOVED],
  [/\b(?:gh[pousr]_|github_pat_|glpat-|dckr_(?:pat|oat)_|xox[a-z]-|npm_|AKIA|ASIA)[\w-]{8,}/g, REMOVED],
  [
    /\b([\w-]*(?:passw(?:or)?d|passphrase|secret|token|credentials?|api[_-]?key|access[_-]?key|auth(?:orization)?))(["']?\s*[=:]\s*["']?)[^\s"',;&]+/gi,
    `$1$2${REMOVED}`,
  ],
];

/**
 * The value without what could be a credential, and without its owner: userinfo, query and fragment of URLs, tokens,
 * `password=…`; home folders become `~`, the names of user and machine `[user]` and `[host]`. In every string and
 * every key, at any depth. What JSON makes of a value is what is looked at.
 */
export function redacted(value: unknown, identity: Identity): unknown {
  const text = textRedactor(identity);
  const walk = (each: unknown): unknown => {
    if (typeof each === 'string') return text(each);
    if (Array.isArray(each)) return each.map(walk);
    if (typeof each !== 'object' || each === null) return each;
    return Object.fromEntries(Object.entries(each).map(([name, field]) => [text(name), walk(field)]));
  };
  return walk(JSON.parse(JSON.stringify(value)) as unknown);
}

function textRedactor({ home, user, host }: Identity): (text: string) => string {
  const replacements: (readonly [RegExp, string])[] = [...SECRETS];
  if (home.length > 1) replacements.push([new RegExp(`${escaped(home)}(?=$|[/\\\\\\s"':])`, 'g'), '~']);
  replacements.push([/([/\\](?:home|Users)[/\\])[^/\\\s"']+/g, '$1[user]']);
  if (!COMMON.has(user)) replacements.push([wholeWord(user), '[user]']);
  if (!COMMON.has(host)) replacements.push([wholeWord(host), '[host]']);
  return (text) =>
    text.length > LONGEST
      ? `[${text.length} characters]`
      : replacements.reduce((result, [pattern, by]) => result.replace(pattern, by), text);
}

function wholeWord(word: string): RegExp {
  return new RegExp(`(?<![\\w-])${escaped(word)}(?![\\w-])`, 'g');
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}
