import {
  claimedDiffID,
  isManifestMediaType,
  layerForm,
  refName,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Entry, EvictedBlob, OciLayout } from '@layercache/layout';
import { indexedLayer } from '../indexes/stored-index.js';
import { isTar } from '../layer-record.js';
import { CACHE_TAG } from '../entries/names.js';
import type { ImageGraph } from '../images/image-graph.js';
import { followersOf } from '../share/selection.js';
import { expiryOf, isPinned } from '../entries/lifetime.js';
import type { Candidate, CandidateKind } from './strategy.js';

/** A blob with what it has on disk. */
interface Stored {
  readonly size: number;
  readonly usedAt: number;
}

/** A candidate with all that it needs. */
interface Unit {
  readonly candidate: Candidate;
  readonly parts: readonly Digest[];
  /** Those of the parts whose use is the use of the whole: a manifest is read by a push, too. */
  readonly used: readonly Digest[];
}

/** What goes when some candidates go. */
export interface Loss {
  readonly blobs: readonly (EvictedBlob & { readonly size: number })[];
  /** Names of images whose manifest stays. */
  readonly names: readonly string[];
  /** Bytes of the blobs on disk. */
  readonly bytes: number;
  /** Entries of `index.json`. */
  readonly entries: number;
}

/** What a cache holds, as things that can go: how each depends on others is known here and nowhere else. */
export class Inventory {
  readonly #units: ReadonlyMap<Candidate, Unit>;
  /** By how many units a blob is needed, those that must stay included. */
  readonly #needed: Map<Digest, number>;
  readonly #entriesOf: ReadonlyMap<Digest, number>;
  readonly #stored: ReadonlyMap<Digest, Stored>;

  private constructor(
    units: ReadonlyMap<Candidate, Unit>,
    needed: Map<Digest, number>,
    entriesOf: ReadonlyMap<Digest, number>,
    stored: ReadonlyMap<Digest, Stored>,
  ) {
    this.#units = units;
    this.#needed = needed;
    this.#entriesOf = entriesOf;
    this.#stored = stored;
  }

  /**
   * Bytes of blobs are those on disk: an entry whose blob is elsewhere takes none.
   *
   * @throws LayercacheError `STORAGE` when it cannot be told what an image needs: then nothing may be removed
   */
  static async of(layout: OciLayout, graph: ImageGraph): Promise<Inventory> {
    const entries = [...layout.entries()].filter(({ descriptor }) => refName(descriptor) !== CACHE_TAG);
    const stored = new Map<Digest, Stored>();
    const entriesOf = new Map<Digest, number>();
    for (const { descriptor } of entries) {
      const { digest } = descriptor;
      entriesOf.set(digest, (entriesOf.get(digest) ?? 0) + 1);
      const facts = stored.has(digest) ? undefined : layout.blobFacts(digest);
      if (facts !== undefined) stored.set(digest, { size: facts.size, usedAt: facts.usedAt.getTime() });
    }
    return new Collector(entries, stored, entriesOf).collect(graph);
  }

  static make(
    units: readonly Unit[],
    staying: readonly (readonly Digest[])[],
    entriesOf: ReadonlyMap<Digest, number>,
    stored: ReadonlyMap<Digest, Stored>,
  ): Inventory {
    const needed = new Map<Digest, number>();
    for (const parts of [...units.map((unit) => unit.parts), ...staying])
      for (const part of parts) needed.set(part, (needed.get(part) ?? 0) + 1);
    const byCandidate = new Map<Candidate, Unit>();
    const now = new Date();
    const sizeOf = (digest: Digest): number => stored.get(digest)?.size ?? 0;
    const isOwn = (part: Digest): boolean => needed.get(part) === 1;
    const lastUse = (of: readonly Digest[]): number | undefined => {
      const times = of.flatMap((part) => stored.get(part)?.usedAt ?? []);
      return times.length === 0 ? undefined : times.reduce((latest, time) => Math.max(latest, time));
    };
    for (const { candidate, parts, used } of units) {
      const bytes = parts.filter(isOwn).reduce((sum, part) => sum + sizeOf(part), 0);
      // Layers are shared with images that nobody uses any more. Of an image that is elsewhere the manifest tells.
      const usedAt = lastUse(used.filter(isOwn)) ?? lastUse(used) ?? lastUse(parts);
      const complete = { ...candidate, bytes, usedAt: usedAt === undefined ? now : new Date(usedAt) };
      byCandidate.set(complete, { candidate: complete, parts, used });
    }
    return new Inventory(byCandidate, needed, entriesOf, stored);
  }

  get candidates(): readonly Candidate[] {
    return [...this.#units.keys()];
  }

  /** Whether the contents of a candidate are all elsewhere, so that to forget it frees next to nothing. */
  isElsewhere(candidate: Candidate): boolean {
    return this.#units.get(candidate)?.used.every((part) => !this.#stored.has(part)) ?? true;
  }

  /** Whether nothing of a candidate is on this disk. */
  isAbsent(candidate: Candidate): boolean {
    return this.#units.get(candidate)?.parts.every((part) => !this.#stored.has(part)) ?? true;
  }

  /** Takes a candidate out. What nothing else needs goes with it. */
  take(candidate: Candidate): Loss {
    const unit = this.#units.get(candidate);
    const digests: Digest[] = [];
    for (const part of unit?.parts ?? []) {
      const needed = (this.#needed.get(part) ?? 0) - 1;
      this.#needed.set(part, needed);
      if (needed === 0) digests.push(part);
    }
    const stays = candidate.kind === 'image' && !digests.includes(candidate.digest);
    return {
      blobs: digests.map((digest) => {
        const stored = this.#stored.get(digest);
        const usedAt = stored === undefined ? undefined : new Date(stored.usedAt);
        return { digest, usedAt, size: stored?.size ?? 0 };
      }),
      names: stays ? candidate.names : [],
      bytes: digests.reduce((sum, digest) => sum + (this.#stored.get(digest)?.size ?? 0), 0),
      entries: digests.reduce((sum, digest) => sum + (this.#entriesOf.get(digest) ?? 0), 0),
    };
  }
}

class Collector {
  readonly #entries: readonly Entry[];
  readonly #stored: ReadonlyMap<Digest, Stored>;
  readonly #entriesOf: ReadonlyMap<Digest, number>;
  readonly #units: Unit[] = [];
  readonly #staying: Digest[][] = [];
  readonly #taken = new Set<Digest>();

  constructor(
    entries: readonly Entry[],
    stored: ReadonlyMap<Digest, Stored>,
    entriesOf: ReadonlyMap<Digest, number>,
  ) {
    this.#entries = entries;
    this.#stored = stored;
    this.#entriesOf = entriesOf;
  }

  async collect(graph: ImageGraph): Promise<Inventory> {
    this.#collectRebuildable();
    await this.#collectImages(graph);
    this.#collectLoose();
    return Inventory.make(this.#units, this.#staying, this.#entriesOf, this.#stored);
  }

  /** Tars whose pair is proven and whose compressed form is here; layer indexes whose layer is here. */
  #collectRebuildable(): void {
    const sources = new Set<Digest>();
    for (const { descriptor, proven } of this.#entries) {
      const diffID = claimedDiffID(descriptor);
      if (isTar(descriptor) || layerForm(descriptor.mediaType) === undefined || diffID === undefined)
        continue;
      if (proven && this.#stored.has(descriptor.digest)) sources.add(diffID);
    }
    for (const { descriptor, proven } of this.#entries) {
      const { digest } = descriptor;
      if (!this.#stored.has(digest) || this.#taken.has(digest)) continue;
      // That a blob is a layer index may be a false claim, but not of one that this machine made.
      const indexed = proven ? indexedLayer(descriptor) : undefined;
      if (isTar(descriptor) && sources.has(digest)) this.#add('tar', digest, [digest]);
      else if (indexed !== undefined && this.#stored.has(indexed)) this.#add('layer-index', digest, [digest]);
    }
  }

  async #collectImages(graph: ImageGraph): Promise<void> {
    const descriptors = this.#entries.map(({ descriptor }) => descriptor);
    const followers = followersOf(descriptors, true);
    const byManifest = new Map<Digest, Descriptor[]>();
    for (const each of descriptors) {
      if (!isManifestMediaType(each.mediaType)) continue;
      byManifest.set(each.digest, [...(byManifest.get(each.digest) ?? []), each]);
    }
    const closures = new Map<Digest, { readonly parts: Digest[]; readonly used: Digest[] }>();
    const children = new Set<Digest>();
    for (const [digest, [image]] of byManifest) {
      if (image === undefined) continue;
      if (await isPartOfCacheIndex(graph, image)) {
        byManifest.delete(digest);
        continue;
      }
      const { manifests, blobs } = await graph.closure(image);
      for (const manifest of manifests) if (manifest.digest !== digest) children.add(manifest.digest);
      const parts = blobs.flatMap((blob) => [blob, ...(followers.get(blob.digest) ?? [])]);
      closures.set(digest, {
        parts: [...new Set([...manifests, ...parts].map((part) => part.digest))],
        used: blobs.map((blob) => blob.digest),
      });
    }
    for (const [digest, entries] of byManifest) {
      const names = entries.flatMap((entry) => refName(entry) ?? []);
      // A nameless image of an index goes with the index.
      if (names.length === 0 && children.has(digest)) continue;
      const closure = closures.get(digest) ?? { parts: [digest], used: [] };
      const parts = closure.parts.filter((part) => !this.#taken.has(part));
      if (entries.some(isPinned)) this.#staying.push(parts);
      else this.#add('image', digest, parts, closure.used, entries);
    }
    for (const { parts } of closures.values()) for (const part of parts) this.#taken.add(part);
  }

  #collectLoose(): void {
    for (const { descriptor } of this.#entries) {
      if (!this.#taken.has(descriptor.digest) && !isManifestMediaType(descriptor.mediaType))
        this.#add('blob', descriptor.digest, [descriptor.digest]);
    }
  }

  #add(
    kind: CandidateKind,
    digest: Digest,
    parts: readonly Digest[],
    used: readonly Digest[] = parts,
    entries: readonly Descriptor[] = [],
  ): void {
    const rebuildable = kind === 'tar' || kind === 'layer-index';
    if (kind !== 'image') this.#taken.add(digest);
    const times = entries.map((entry) => expiryOf(entry)?.getTime());
    // It is over when none of its names holds any more.
    const expires = times.every((time) => time !== undefined) ? Math.max(...times) : undefined;
    this.#units.push({
      candidate: {
        kind,
        digest,
        names: entries.flatMap((entry) => refName(entry) ?? []),
        bytes: 0,
        usedAt: new Date(0),
        expiresAt: expires === undefined || entries.length === 0 ? undefined : new Date(expires),
        rebuildable,
      },
      parts,
      used,
    });
  }
}

/** Whether a manifest without a name is a former cache index, or a shard of one. The next commit drops it. */
async function isPartOfCacheIndex(graph: ImageGraph, manifest: Descriptor): Promise<boolean> {
  const { kind } = await graph.node(manifest);
  return (kind === 'cache index' || kind === 'shard') && refName(manifest) === undefined;
}
