import { LayercacheError, type Descriptor } from '@layercache/oci';

/** Characters of one field of a platform. The longest in use are Windows versions such as `10.0.17763.1234`. */
const MAX_PLATFORM_FIELD = 128;
const MAX_FEATURES = 64;
/** Addresses of one layer that may not be distributed. */
const MAX_URLS = 32;
const MAX_URL_LENGTH = 2048;
const MAX_TYPE_LENGTH = 255;

/**
 * Checks the fields of nested descriptors that become part of entries: the schema has checked media types, digests and
 * sizes. Everything else that an author wrote stays in the manifest and is never looked at.
 *
 * @param fields descriptors by the name of the field that they stand in
 * @throws LayercacheError `DOCUMENT_INVALID`, with the field
 */
export function checkDescriptors(
  fields: Readonly<Record<string, Descriptor | readonly Descriptor[] | undefined>>,
  what: string,
): void {
  for (const [field, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (!Array.isArray(value)) checkDescriptor(value as Descriptor, field, what);
    else
      for (const [at, each] of value.entries()) checkDescriptor(each as Descriptor, `${field}.${at}`, what);
  }
}

function checkDescriptor(descriptor: Descriptor, field: string, what: string): void {
  const refuse = (name: string, why: string): never => {
    throw new LayercacheError('DOCUMENT_INVALID', `${what} is not valid: ${field}.${name}: ${why}`);
  };
  const { platform, artifactType, urls } = descriptor;
  if (platform !== undefined) {
    const { os, architecture, variant, 'os.version': version, 'os.features': features = [] } = platform;
    const texts = { os, architecture, variant, 'os.version': version };
    for (const [name, text] of Object.entries(texts))
      if (text !== undefined && !isPlain(text, MAX_PLATFORM_FIELD))
        refuse(`platform.${name}`, `not up to ${MAX_PLATFORM_FIELD} characters of visible ASCII`);
    if (features.length > MAX_FEATURES) refuse('platform.os.features', `more than ${MAX_FEATURES}`);
    if (!features.every((feature) => isPlain(feature, MAX_PLATFORM_FIELD)))
      refuse('platform.os.features', `not up to ${MAX_PLATFORM_FIELD} characters of visible ASCII`);
  }
  if (artifactType !== undefined && !isPlain(artifactType, MAX_TYPE_LENGTH))
    refuse('artifactType', `not up to ${MAX_TYPE_LENGTH} characters of visible ASCII`);
  if (urls === undefined) return;
  if (urls.length > MAX_URLS) refuse('urls', `more than ${MAX_URLS}`);
  for (const [at, url] of urls.entries())
    if (!isWebAddress(url))
      refuse(`urls.${at}`, `not an http(s) address of up to ${MAX_URL_LENGTH} characters`);
}

function isPlain(text: string, maxLength: number): boolean {
  return text.length <= maxLength && /^[\x20-\x7e]*$/.test(text);
}

/** An address without credentials in it: nobody else's password is sent anywhere. */
function isWebAddress(text: string): boolean {
  if (text.length > MAX_URL_LENGTH || !URL.canParse(text)) return false;
  const { protocol, username, password } = new URL(text);
  return (protocol === 'http:' || protocol === 'https:') && username === '' && password === '';
}
