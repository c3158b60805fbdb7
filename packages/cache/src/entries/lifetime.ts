import { Annotation, refName, withAnnotations, type Descriptor } from '@layercache/oci';

/** Whether the image must stay, whatever room is wanted. A pin belongs to a name: without one it holds nothing. */
export function isPinned(descriptor: Descriptor): boolean {
  return refName(descriptor) !== undefined && descriptor.annotations?.[Annotation.pinned] === 'true';
}

/** Annotations of an entry are united with those of before, so that one is not taken away but overruled. */
export function withPin(descriptor: Descriptor, pinned: boolean): Descriptor {
  return withAnnotations(descriptor, { [Annotation.pinned]: String(pinned) });
}

/** When the time of a name is over; undefined: never. What is no time is none. */
export function expiryOf(descriptor: Descriptor): Date | undefined {
  const text = refName(descriptor) === undefined ? undefined : descriptor.annotations?.[Annotation.expires];
  const time = text === undefined || text === '' ? NaN : Date.parse(text);
  return Number.isNaN(time) ? undefined : new Date(time);
}

export function isExpired(descriptor: Descriptor, now: Date): boolean {
  const expiry = expiryOf(descriptor);
  return expiry !== undefined && expiry <= now;
}

/** @param expiry undefined: never */
export function withExpiry(descriptor: Descriptor, expiry: Date | undefined): Descriptor {
  return withAnnotations(descriptor, { [Annotation.expires]: expiry?.toISOString() ?? '' });
}
