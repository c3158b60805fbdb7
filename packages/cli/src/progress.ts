import { shortDigest, type Descriptor } from '@layercache/oci';
import { MultiBar, Presets, SingleBar } from 'cli-progress';
import { escapeLine } from './escape.js';
import { formatBytes } from './output.js';

/** One bar a blob under way. */
export interface Progress {
  /** @param received bytes of it so far */
  update(descriptor: Descriptor, received: number): void;
  done(descriptor: Descriptor): void;
  stop(): void;
}

/** Bytes. Smaller blobs are through before anybody could read their bar. */
const WORTH_A_BAR = 512 * 1024;

const nothing: Progress = { update: () => undefined, done: () => undefined, stop: () => undefined };

export function createProgress(visible: boolean): Progress {
  if (!visible) return nothing;
  const bars = new MultiBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{name}  [{bar}] {percentage}%  {received} / {size}',
    },
    Presets.legacy,
  );
  const running = new Map<string, SingleBar>();
  return {
    update(descriptor, received) {
      if (descriptor.size < WORTH_A_BAR) return;
      const words = {
        name: escapeLine(shortDigest(descriptor.digest)),
        received: formatBytes(received),
        size: formatBytes(descriptor.size),
      };
      const bar = running.get(descriptor.digest) ?? bars.create(descriptor.size, received, words);
      running.set(descriptor.digest, bar);
      bar.update(received, words);
    },
    done(descriptor) {
      const bar = running.get(descriptor.digest);
      if (bar === undefined) return;
      running.delete(descriptor.digest);
      bar.stop();
      bars.remove(bar);
    },
    stop() {
      bars.stop();
    },
  };
}

/** One bar for work that goes step by step. */
export interface StepProgress {
  update(step: string, done: number, total: number): void;
  stop(): void;
}

export function createStepProgress(visible: boolean): StepProgress {
  if (!visible) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{step}  [{bar}] {value} / {total}',
    },
    Presets.legacy,
  );
  let started = false;
  return {
    update(step, done, total) {
      const words = { step: escapeLine(step) };
      if (!started) bar.start(total, done, words);
      started = true;
      bar.setTotal(total);
      bar.update(done, words);
    },
    stop() {
      bar.stop();
    },
  };
}
