import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { ReportData } from '../../report-page/report-data.js';

const SOURCES = new URL('../../../report-page/', import.meta.url);
const COMPILED = new URL('../../report-page/', import.meta.url);

/** In an order in which each needs only those before it. */
const MODULES = [
  'elements',
  'format',
  'squarify',
  'treemap-tree',
  'treemap',
  'tables',
  'charts',
  'page',
] as const;

/**
 * One HTML file with everything in it: no request leaves it, and its policy says so. What is in the cache stands in
 * it as JSON; the only code that runs is ours, by its hash.
 */
export async function reportPage(data: ReportData): Promise<string> {
  const [body, script, ...styles] = await Promise.all([
    readFile(new URL('page.html', SOURCES), 'utf8'),
    pageScript(),
    readFile(new URL('page.css', SOURCES), 'utf8'),
    readFile(new URL('drawing.css', SOURCES), 'utf8'),
  ]);
  const style = styles.join('');
  const policy = `default-src 'none'; script-src '${hash(script)}'; style-src '${hash(style)}'; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>layercache</title>
<style>${style}</style>
</head>
<body>
${body}<script type="application/json" id="data">${embeddedJson(data)}</script>
<script type="module">${script}</script>
</body>
</html>
`;
}

/** JSON that ends no script element, opens no comment in one, and is the same JSON. */
export function embeddedJson(value: unknown): string {
  const escapes: Readonly<Record<string, string>> = {
    '<': '\\u003c',
    '>': '\\u003e',
    '&': '\\u0026',
    '\u2028': '\\u2028',
    '\u2029': '\\u2029',
  };
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => escapes[character] ?? character);
}

/** The modules of the page as one: a page without requests cannot import. */
async function pageScript(): Promise<string> {
  const modules = await Promise.all(MODULES.map((name) => readFile(new URL(`${name}.js`, COMPILED), 'utf8')));
  return modules
    .map((text) =>
      text
        .replace(/^import [^;]*;\n/gm, '')
        .replace(/^export (?=(?:async )?(?:function|class|const) )/gm, '')
        .replace(/^\/\/# sourceMappingURL=.*\n?/gm, ''),
    )
    .join('');
}

function hash(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
