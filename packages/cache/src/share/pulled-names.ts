import { isIP } from 'node:net';
import {
  abortedError,
  isClaimedName,
  isLayercacheError,
  refName,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { formatReference, parseReference, type Reference } from '@layercache/registry';
import { entryOf } from '../entries/entry.js';
import { isPinned } from '../entries/lifetime.js';
import { digestIn } from '../entries/names.js';
import { canonicalName } from '../images/image-names.js';
import type { TagResolver } from '../tags/tag-resolver.js';
import { eachOf } from './each.js';

/**
 * What happens to names that come with a shared cache: `prove` asks the registry of each, `skip` asks nobody, and both
 * leave the others as claims; `trust` takes them as if they had been given here.
 */
export type NamePolicy = 'prove' | 'trust' | 'skip';

/** A name that means one image here and another in the cache that was pulled. */
export interface DifferentName {
  readonly name: string;
  readonly here: Digest;
  readonly there: Digest;
}

/** What became of the names of a shared cache. */
export interface PulledNames {
  /** Names that their registries have confirmed now. */
  readonly proven: readonly string[];
  /** Names that are still only what the shared cache says. */
  readonly claimed: readonly string[];
  /** Names that keep their meaning here. */
  readonly different: readonly DifferentName[];
}

export interface PulledNamesContext {
  readonly layout: OciLayout;
  readonly tags: TagResolver;
  /** The host that the shared cache came from. */
  readonly host: string;
  readonly renew: (named: Descriptor) => Descriptor;
  readonly concurrency: number;
  readonly logger: Logger;
}

/** Milliseconds for which the registry of a name may take to answer. */
const PATIENCE = 10_000;
/** Milliseconds after which no more registries are asked: the other names stay claims until the next pull. */
const PATIENCE_WITH_ALL = 60_000;
/** Registries that one pull asks. */
const MAX_REGISTRIES = 64;

/**
 * Gives the images of a shared cache their names here. A name that this machine knows keeps its meaning: only one that
 * is itself a claim moves, when its registry says so or with `trust`, and never one of a pinned image.
 */
export class NamePuller {
  readonly #context: PulledNamesContext;
  /** Registries that did not answer: they are not asked for their other names. */
  readonly #silent = new Set<string>();
  readonly #deadline = performance.now() + PATIENCE_WITH_ALL;
  /** The first question to each registry, which the others wait for. */
  readonly #first = new Map<string, Promise<void>>();

  constructor(context: PulledNamesContext) {
    this.#context = context;
  }

  /** The entries to put for images of the shared cache, which are here. */
  entries(images: readonly Descriptor[], policy: NamePolicy): Descriptor[] {
    const { layout, renew } = this.#context;
    const nameless = (image: Descriptor): Descriptor[] => {
      const isListed = layout
        .lookup(image.digest)
        .some(({ descriptor }) => descriptor.digest === image.digest);
      return isListed ? [] : [entryOf(image)];
    };
    return images.flatMap((image) => {
      const name = refName(image);
      if (name === undefined) return nameless(image);
      const here = this.#known(name);
      if (here?.digest === image.digest && !(policy === 'trust' && isClaimedName(here))) return [];
      if (!mayMove(here, policy)) return nameless(image);
      const trusted = policy === 'trust' || digestIn(name) === image.digest;
      return [trusted ? renew(entryOf(image, { name })) : entryOf(image, { name, claimedName: true })];
    });
  }

  /** Asks the registries of names that are claims, and says what became of all names. */
  async settle(
    images: readonly Descriptor[],
    policy: NamePolicy,
    signal: AbortSignal | undefined,
  ): Promise<PulledNames> {
    const { layout, concurrency } = this.#context;
    const proven: string[] = [];
    const claimed: string[] = [];
    const different: DifferentName[] = [];
    const named = images.filter((image) => refName(image) !== undefined);
    await eachOf(named, { concurrency, signal }, async (image) => {
      const name = refName(image) ?? '';
      const before = layout.lookupTag(name)?.descriptor;
      if (policy === 'prove' && before !== undefined && isClaimedName(before)) {
        if (await this.#prove(image, before, name, signal)) proven.push(name);
      }
      const here = this.#known(name);
      if (here === undefined) return;
      if (here.digest !== image.digest) different.push({ name, here: here.digest, there: image.digest });
      else if (isClaimedName(here)) claimed.push(name);
    });
    return { proven: proven.sort(), claimed: claimed.sort(), different: different.sort(byName) };
  }

  /** What a name means here, however it is spelled: `alpine:3.20` is `docker.io/library/alpine:3.20`. */
  #known(name: string): Descriptor | undefined {
    const { layout } = this.#context;
    const own = layout.lookupTag(name)?.descriptor;
    if (own !== undefined && !isClaimedName(own)) return own;
    return layout.lookupTag(canonicalName(name))?.descriptor ?? own;
  }

  async #prove(
    image: Descriptor,
    before: Descriptor,
    name: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const { layout, renew } = this.#context;
    const reference = this.#askable(name);
    const answer = reference === undefined ? undefined : await this.#ask(reference, name, signal);
    const confirmed = [before, image].find((each) => each.digest === answer);
    if (confirmed === undefined || (confirmed !== before && isPinned(before))) return false;
    // Put without being called a claim, it is none any more.
    await layout.put(renew(entryOf(confirmed, { name })));
    return true;
  }

  /** What the registry says that the name means; undefined when it cannot be asked. */
  async #ask(
    { registry }: Reference,
    name: string,
    signal: AbortSignal | undefined,
  ): Promise<Digest | undefined> {
    const first = this.#first.get(registry);
    await first;
    if (this.#silent.has(registry) || performance.now() > this.#deadline) return undefined;
    if (first === undefined && this.#first.size >= MAX_REGISTRIES) return undefined;
    const patience = AbortSignal.timeout(PATIENCE);
    const question = this.#context.tags
      .resolve(name, { signal: signal === undefined ? patience : AbortSignal.any([signal, patience]) })
      .then(
        (tag) => tag.digest,
        (error: unknown) => {
          if (signal?.aborted === true) throw abortedError(signal);
          if (!isLayercacheError(error)) throw error;
          const gone = isLayercacheError(error, 'NOT_FOUND', 'UNAUTHORIZED');
          if (!gone) this.#silent.add(registry);
          const { message, code } = error;
          this.#context.logger.debug({ message: 'name not confirmed', name, error: message, code });
          return undefined;
        },
      );
    if (first === undefined)
      this.#first.set(
        registry,
        question.then(
          () => undefined,
          () => undefined,
        ),
      );
    return question;
  }

  /**
   * The reference that a name is in full. A shared cache must not make this machine ask around in its own network: a
   * registry there is only asked when the cache came from one.
   */
  #askable(name: string): Reference | undefined {
    try {
      const reference = parseReference(name);
      if (formatReference(reference) !== name || reference.digest !== undefined) return undefined;
      return isNear(reference.registry) && !isNear(this.#context.host) ? undefined : reference;
    } catch (error) {
      if (isLayercacheError(error, 'REFERENCE_INVALID')) return undefined;
      throw error;
    }
  }
}

/** Whether a name that stands for an image here, or for none, may come to mean another one. */
function mayMove(here: Descriptor | undefined, policy: NamePolicy): boolean {
  return here === undefined || (policy === 'trust' && isClaimedName(here) && !isPinned(here));
}

/** Whether a host is this machine or one of its own network: a bare address, or a name without a domain. */
function isNear(host: string): boolean {
  // Read as the client will: `127.1` and `0x7f.1` are addresses of this machine, too.
  if (!URL.canParse(`https://${host}`)) return true;
  const name = new URL(`https://${host}`).hostname.replace(/^\[|\]$/g, '');
  return (
    isIP(name) !== 0 ||
    !name.includes('.') ||
    /\.(?:localhost|local|internal|lan|home|corp|intranet)\.?$/.test(name)
  );
}

function byName(a: DifferentName, b: DifferentName): number {
  return a.name < b.name ? -1 : 1;
}
