import { randomUUID } from 'node:crypto';
import type { Registry } from '../../src/registry.js';
import { describeDiscovery } from './discovery.js';
import { describeManagement } from './management.js';
import { describePull, type Lack } from './pull.js';
import { describePush } from './push.js';

export type { Lack } from './pull.js';

/** A registry to test, and what there is to close afterwards. */
export interface OpenedRegistry {
  readonly registry: Registry;
  close(): Promise<void>;
}

/**
 * Declares the mocha tests of everything that {@link Registry} promises, in the four workflows of the distribution
 * specification. Every implementation of the interface runs it.
 *
 * @param lacks what this registry cannot do: those tests are pending
 */
export function describeRegistry(
  name: string,
  open: () => Promise<OpenedRegistry>,
  lacks: readonly Lack[] = [],
): void {
  describe(`the Registry interface: ${name}`, () => {
    let opened: OpenedRegistry | undefined;
    before(async () => {
      opened = await open();
    });
    after(async () => {
      await opened?.close();
    });
    const subject = {
      registry: (): Registry => {
        if (opened === undefined) throw new Error('the registry is not open');
        return opened.registry;
      },
      repository: () => `conformance/${randomUUID()}`,
      lacks: new Set(lacks),
    };
    describePull(subject);
    describePush(subject);
    describeDiscovery(subject);
    describeManagement(subject);
  });
}
