import {
  claimedDiffID,
  claimedDigests,
  isClaimedName,
  refName,
  withAnnotations,
  Annotation,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import {
  compareEntries,
  compareText,
  lookupKeys,
  normalise,
  withDigests,
  withoutName,
  type Entry,
} from './entry.js';
import { canonicalJson } from './index-document.js';
import { uniteEntries } from './unite-entries.js';

/** Something that knows entries. */
export interface EntrySource {
  /** Entries with this digest, in canonical order. */
  of(digest: Digest): readonly Entry[];
  /** Entries that are found by this digest or diffID, in canonical order. */
  lookup(key: Digest): readonly Entry[];
  tagged(name: string): Entry | undefined;
  /** In canonical order. */
  all(): Iterable<Entry>;
}

export const noEntries: EntrySource = {
  of: () => [],
  lookup: () => [],
  tagged: () => undefined,
  all: () => [],
};

/** Entries that changed, over a base that did not. All of a digest's entries change together. */
export class EntryTable implements EntrySource {
  readonly #base: EntrySource;
  readonly #entries = new Map<Digest, readonly Entry[]>();
  readonly #keys = new Map<Digest, Set<Digest>>();
  readonly #names = new Map<string, Digest | undefined>();
  /** How many entries there are more than in the base. */
  #more = 0;

  constructor(base: EntrySource = noEntries) {
    this.#base = base;
  }

  /** Digests whose entries differ from those of the base. */
  get changed(): ReadonlySet<Digest> {
    return new Set(this.#entries.keys());
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Entries more, or fewer, than the base has. */
  get growth(): number {
    return this.#more;
  }

  of(digest: Digest): readonly Entry[] {
    return this.#entries.get(digest) ?? this.#base.of(digest);
  }

  lookup(key: Digest): readonly Entry[] {
    const below = this.#base.lookup(key);
    if (this.#entries.size === 0) return below;
    const digests = this.#keys.get(key);
    const kept = below.filter((entry) => !this.#entries.has(entry.descriptor.digest));
    if (digests === undefined) return kept;
    return [...kept, ...[...digests].flatMap((digest) => this.#entries.get(digest) ?? [])].sort(
      compareEntries,
    );
  }

  tagged(name: string): Entry | undefined {
    const digest = this.#names.get(name);
    if (digest === undefined) return this.#names.has(name) ? undefined : this.#base.tagged(name);
    return this.#entries.get(digest)?.find((entry) => refName(entry.descriptor) === name);
  }

  *all(): Iterable<Entry> {
    // A copy: what is put while someone iterates is not part of it, and takes nothing out of it.
    const entries = new Map(this.#entries);
    const changed = [...entries.keys()].sort(compareText);
    let next = 0;
    for (const entry of this.#base.all()) {
      const { digest } = entry.descriptor;
      for (let key = changed[next]; key !== undefined && key <= digest; key = changed[++next]) {
        yield* entries.get(key) ?? [];
      }
      if (!entries.has(digest)) yield entry;
    }
    for (const key of changed.slice(next)) yield* entries.get(key) ?? [];
  }

  /**
   * Adds an entry, or unites it with the one that has the same digest and name ({@link uniteEntries}). A proof holds
   * for as long as digest and diffID stay the same, and a claim does not replace it. A name that another digest had
   * moves here, unless it is only claimed: then the entry is added without it. All entries of a digest take on its
   * size: the same bytes have one.
   */
  put(given: Descriptor, proven: boolean): void {
    const descriptor = this.#withName(given);
    const { digest } = descriptor;
    const name = refName(descriptor);
    const moved = name === undefined ? undefined : this.tagged(name);
    if (name !== undefined && moved !== undefined && moved.descriptor.digest !== digest) this.untag(name);

    const before = this.of(digest);
    const same = before.find((entry) => refName(entry.descriptor) === name);
    const after = this.#united(descriptor, proven, before);
    const diffID = claimedDiffID(after.descriptor);
    const others = before
      .filter((entry) => entry !== same)
      .map((entry) =>
        after.proven && claimedDiffID(entry.descriptor) === diffID ? { ...entry, proven: true } : entry,
      )
      .map((entry) => ({ ...entry, descriptor: withSize(entry.descriptor, after.descriptor.size) }));
    this.#set(digest, [...others, after].sort(compareEntries));
  }

  /** Whether putting this would leave everything as it is. */
  holds(given: Descriptor, proven: boolean): boolean {
    const descriptor = this.#withName(given);
    const name = refName(descriptor);
    const before = this.of(descriptor.digest);
    const same = before.find((entry) => refName(entry.descriptor) === name);
    if (same === undefined || before.some((entry) => entry.descriptor.size !== descriptor.size)) return false;
    const after = this.#united(descriptor, proven, before);
    return after.proven === same.proven && canonicalJson(after.descriptor) === canonicalJson(same.descriptor);
  }

  /** A name that is only claimed takes effect where nothing has it. */
  #withName(descriptor: Descriptor): Descriptor {
    if (!isClaimedName(descriptor)) return descriptor;
    const owner = this.tagged(refName(descriptor) ?? '')?.descriptor;
    if (owner === undefined || isClaimedName(owner)) {
      return owner === undefined || owner.digest === descriptor.digest ? descriptor : withoutName(descriptor);
    }
    return owner.digest === descriptor.digest
      ? withAnnotations(descriptor, { [Annotation.nameState]: undefined })
      : withoutName(descriptor);
  }

  #united(descriptor: Descriptor, proven: boolean, before: readonly Entry[]): Entry {
    const name = refName(descriptor);
    const proof = before.find((entry) => entry.proven);
    const same = before.find((entry) => refName(entry.descriptor) === name);
    const united = normalise(
      same === undefined ? descriptor : uniteEntries(same.descriptor, descriptor, proven),
    );
    const kept = proof !== undefined && !proven ? withProvenDiffID(united, proof.descriptor) : united;
    const stillProven = proof !== undefined && claimedDiffID(proof.descriptor) === claimedDiffID(kept);
    return { descriptor: kept, proven: proven || stillProven };
  }

  /** Replaces all entries of a digest as they are given. */
  replace(digest: Digest, entries: readonly Entry[]): void {
    this.#set(digest, entries);
  }

  /** Forgets a digest, also as the counterpart of a tar. False when it was not known. */
  remove(digest: Digest): boolean {
    let found = this.of(digest).length > 0;
    for (const { descriptor } of this.lookup(digest)) {
      if (descriptor.digest === digest || !claimedDigests(descriptor).includes(digest)) continue;
      found = true;
      const entries = this.of(descriptor.digest).map((entry) => ({
        ...entry,
        descriptor: withDigests(
          entry.descriptor,
          claimedDigests(entry.descriptor).filter((listed) => listed !== digest),
        ),
      }));
      this.#set(descriptor.digest, entries);
    }
    if (this.of(digest).length > 0) this.#set(digest, []);
    return found;
  }

  /** The entry loses its name and stays, unless the digest has another entry. False when there is no such name. */
  untag(name: string): boolean {
    const entry = this.tagged(name);
    if (entry === undefined) return false;
    const { digest } = entry.descriptor;
    const others = this.of(digest).filter((other) => refName(other.descriptor) !== name);
    this.#set(digest, others.length > 0 ? others : [{ ...entry, descriptor: withoutName(entry.descriptor) }]);
    return true;
  }

  #set(digest: Digest, entries: readonly Entry[]): void {
    const before = this.of(digest);
    this.#more += entries.length - before.length;
    for (const { descriptor } of before) {
      for (const key of lookupKeys(descriptor)) this.#keys.get(key)?.delete(digest);
      const name = refName(descriptor);
      if (name !== undefined) this.#names.set(name, undefined);
    }
    this.#entries.set(digest, entries);
    for (const { descriptor } of entries) {
      for (const key of lookupKeys(descriptor)) {
        const digests = this.#keys.get(key);
        if (digests === undefined) this.#keys.set(key, new Set([digest]));
        else digests.add(digest);
      }
      const name = refName(descriptor);
      if (name !== undefined) this.#names.set(name, digest);
    }
  }
}

function withSize(descriptor: Descriptor, size: number): Descriptor {
  return descriptor.size === size ? descriptor : { ...descriptor, size };
}

function withProvenDiffID(descriptor: Descriptor, proof: Descriptor): Descriptor {
  const diffID = claimedDiffID(proof);
  if (diffID === undefined || claimedDiffID(descriptor) === diffID) return descriptor;
  return { ...descriptor, annotations: { ...descriptor.annotations, [Annotation.diffID]: diffID } };
}
