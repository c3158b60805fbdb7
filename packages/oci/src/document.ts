import type { z } from 'zod';
import { LayercacheError } from './errors.js';
import { MAX_NESTING, isNestedTooDeep } from './nesting.js';

const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Decodes JSON from outside and checks it against a schema.
 *
 * @param what names the document in the error: `image manifest sha256:…`
 * @throws LayercacheError `DOCUMENT_INVALID`, with the path of the first field that is wrong
 */
export function parseDocument<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  if (isNestedTooDeep(bytes)) {
    throw new LayercacheError(
      'DOCUMENT_INVALID',
      `${what} is not valid: arrays and objects are nested deeper than ${MAX_NESTING} levels`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text.decode(bytes));
  } catch (cause) {
    const start = JSON.stringify(Buffer.from(bytes.subarray(0, 40)).toString('latin1'));
    throw new LayercacheError('DOCUMENT_INVALID', `${what} is not JSON: it starts with ${start}`, { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue === undefined || issue.path.length === 0 ? 'the document' : fieldPath(issue.path);
  throw new LayercacheError(
    'DOCUMENT_INVALID',
    `${what} is not valid: ${path}: ${issue?.message ?? 'unknown'}`,
    {
      cause: result.error,
    },
  );
}

/** The place of a field as `layers.3.digest`. Keys come from the document, so a long one is cut. */
function fieldPath(path: readonly PropertyKey[]): string {
  const text = path.map(String).join('.');
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
