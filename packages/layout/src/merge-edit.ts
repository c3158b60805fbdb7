import {
  Annotation,
  claimedDiffID,
  isManifestMediaType,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { compareEntries, normalise, withoutName, type Entry } from './entry.js';
import type { EntrySource } from './entry-table.js';
import { namesSince, type History } from './history.js';
import type { IndexDocument } from './index-document.js';
import { MapEncoder, decodeHeader } from './map-format.js';
import { MapReader, MemoryPages } from './map-reader.js';
import { CLAIMS, ORIGIN_PREFIX, uniteEntries } from './unite-entries.js';

/** What another tool's edit of `index.json` brought and took. */
export interface Edit {
  /** Manifests and indexes that were not there before. */
  readonly arrived: readonly Descriptor[];
  /** Derived entries of before in whose place there is another one. */
  readonly superseded: readonly Descriptor[];
  /** What the map of before knows. */
  readonly before: EntrySource;
  /** Entries of before that are missing although their blob is here. They are kept, without their names. */
  readonly kept: readonly Entry[];
}

/** What an edit is merged with. */
export interface EditContext {
  /** What the tool wrote. */
  readonly document: IndexDocument;
  /** What the map of before knows. */
  readonly before: EntrySource;
  /** Whether there is such a map. Without one, what index.json says is all there is. */
  readonly hasBase: boolean;
  readonly history: History;
  readonly derivedNames: readonly string[];
  readonly isHere: (digest: Digest) => boolean;
}

/**
 * An `index.json` that another tool wrote, with what only the map of before knows. What the tool did to names counts; a
 * name that it did not touch, because it had read an older `index.json`, is what it has become since. A name belongs to
 * one digest: the last one in the file that has it. An entry that went missing is kept for as long as its blob is
 * here: other tools' garbage collection drops what has no name.
 */
export function mergeEdit(context: EditContext): { reader: MapReader; edit: Edit } {
  const { document, before, isHere } = context;
  const names = decideNames(context);
  const merged = new Map<string, Entry>();
  const digests = new Set<Digest>();
  const nameless: Entry[] = [];
  const arrived: Descriptor[] = [];
  const add = (entry: Entry): void => {
    const key = `${entry.descriptor.digest} ${refName(entry.descriptor) ?? ''}`;
    const same = merged.get(key);
    const descriptor =
      same === undefined ? entry.descriptor : uniteEntries(same.descriptor, entry.descriptor, false);
    merged.set(key, { descriptor, proven: entry.proven });
    digests.add(entry.descriptor.digest);
  };
  const wasCache = document.manifests.some((each) => context.derivedNames.includes(refName(each) ?? ''));
  const believesFacts = !context.hasBase && wasCache;
  for (const given of document.manifests) {
    const known = before.of(given.digest);
    const descriptor = withKnownFacts(withUsableName(normalise(given)), known, before, believesFacts);
    const { digest } = descriptor;
    const name = refName(descriptor);
    if (name !== undefined && names.isFormerlyDerived(name, digest)) continue;
    if (names.isOlder && known.length === 0 && !isHere(digest)) continue;
    const diffID = claimedDiffID(descriptor);
    const proven = known.some((entry) => entry.proven && claimedDiffID(entry.descriptor) === diffID);
    if (name === undefined || names.holder(name) === digest) add({ descriptor, proven });
    else nameless.push({ descriptor: withoutName(descriptor), proven });
    if (known.length === 0 && isManifestMediaType(descriptor.mediaType)) arrived.push(descriptor);
  }
  for (const entry of names.ours()) add(entry);
  for (const entry of nameless) if (!digests.has(entry.descriptor.digest)) add(entry);
  const kept: Entry[] = [];
  const superseded: Descriptor[] = [];
  for (const entry of before.all()) {
    const { descriptor } = entry;
    const name = refName(descriptor);
    if (digests.has(descriptor.digest)) continue;
    if (name !== undefined && context.derivedNames.includes(name)) {
      if (names.holder(name) === undefined) kept.push(entry);
      else superseded.push(descriptor);
    } else if (isHere(descriptor.digest)) {
      kept.push({ ...entry, descriptor: withoutName(descriptor) });
    }
  }
  return {
    reader: readerOf(document, [...merged.values()].sort(compareEntries)),
    edit: { arrived, kept, superseded, before },
  };
}

/**
 * What a tool wrote of a digest that is known here, as a claim beside what is known: it does not undo a proof, nor turn a
 * layer into something else. Where no map is left of before, and there never was a cache, copied annotations are no facts.
 */
function withKnownFacts(
  descriptor: Descriptor,
  known: readonly Entry[],
  before: EntrySource,
  believesFacts: boolean,
): Descriptor {
  const own = believesFacts ? descriptor : withLocalFacts(descriptor, before);
  const [entry] = known.filter(({ proven }) => proven).concat(known);
  if (entry === undefined) return own;
  const { annotations = {}, ...fields } = entry.descriptor;
  const claims = Object.fromEntries(Object.entries(annotations).filter(([name]) => CLAIMS.includes(name)));
  return uniteEntries({ ...fields, annotations: claims }, { ...own, size: fields.size }, false);
}

/** A name that reads as a digest, or that has control characters, is no name; the entry stays without it. */
function withUsableName(descriptor: Descriptor): Descriptor {
  const name = refName(descriptor);
  const isUsable = name === undefined || !/^sha(?:256|512):[0-9a-fA-F]*$|[\p{Cc}\p{Cs}]/u.test(name);
  return isUsable ? descriptor : withoutName(descriptor);
}

/**
 * A descriptor with the facts that only this machine notes, as they were before the edit: origins by digest, pins and
 * times by name. Tools copy annotations of descriptors from manifests into `index.json`, so there they are no facts.
 */
function withLocalFacts(descriptor: Descriptor, before: EntrySource): Descriptor {
  const name = refName(descriptor);
  const owner = name === undefined ? undefined : before.tagged(name)?.descriptor;
  const facts: Record<string, string | undefined> = {};
  for (const each of Object.keys(descriptor.annotations ?? {}))
    if (isLocalFact(each)) facts[each] = undefined;
  for (const known of before.of(descriptor.digest))
    for (const [each, value] of Object.entries(known.descriptor.annotations ?? {}))
      if (each.startsWith(ORIGIN_PREFIX)) facts[each] = value;
  for (const each of [Annotation.pinned, Annotation.expires]) facts[each] = owner?.annotations?.[each];
  facts[Annotation.nameState] =
    owner?.digest === descriptor.digest ? owner.annotations?.[Annotation.nameState] : undefined;
  return withAnnotations(descriptor, facts);
}

const LOCAL_FACTS: readonly string[] = [Annotation.pinned, Annotation.expires, Annotation.nameState];

function isLocalFact(name: string): boolean {
  return name.startsWith(ORIGIN_PREFIX) || LOCAL_FACTS.includes(name);
}

/** Which digest each name belongs to, after what the tool did and what was done here since it read. */
function decideNames({ document, before, history, derivedNames }: EditContext): {
  /** The tool had read an `index.json` that is older than the map. */
  readonly isOlder: boolean;
  readonly isFormerlyDerived: (name: string, digest: Digest) => boolean;
  readonly holder: (name: string) => Digest | undefined;
  readonly ours: () => readonly Entry[];
} {
  const theirs = new Map<string, Digest>();
  for (const descriptor of document.manifests) {
    const name = refName(descriptor);
    if (name !== undefined) theirs.set(name, descriptor.digest);
  }
  const marker = derivedNames[0] === undefined ? undefined : theirs.get(derivedNames[0]);
  const isCurrent =
    derivedNames[0] !== undefined && before.tagged(derivedNames[0])?.descriptor.digest === marker;
  const since = marker === undefined || isCurrent ? undefined : namesSince(history, marker);
  const isOlder = since !== undefined;
  const isFormerlyDerived = (name: string, digest: Digest): boolean =>
    isOlder && derivedNames.includes(name) && before.tagged(name)?.descriptor.digest !== digest;
  const ours: Entry[] = [];
  for (const [name, base] of since ?? []) {
    if (derivedNames.includes(name) || theirs.get(name) !== base) continue;
    const entry = before.tagged(name);
    if (entry === undefined) theirs.delete(name);
    else {
      theirs.set(name, entry.descriptor.digest);
      ours.push(entry);
    }
  }
  if (isOlder) for (const name of derivedNames) theirs.delete(name);
  return { isOlder, isFormerlyDerived, holder: (name) => theirs.get(name), ours: () => ours };
}

function readerOf(document: IndexDocument, entries: readonly Entry[]): MapReader {
  const encoder = new MapEncoder(0);
  for (const entry of entries) encoder.add(entry);
  const { pages, header } = encoder.finish(document.head, {
    index: { ino: 0n, size: 0n, mtimeNs: 0n },
    indexDigest: `sha256:${'0'.repeat(64)}`,
    foreign: true,
  });
  const bytes = Buffer.concat([header, ...pages]);
  return new MapReader(decodeHeader(header), new MemoryPages(bytes));
}
