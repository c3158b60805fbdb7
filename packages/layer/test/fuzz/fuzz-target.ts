import { isLayercacheError, type ErrorCode } from '@layercache/oci';
import { mutate, Random, type Seed } from './mutate.js';

/** A decoder, and valid bytes to start from. */
export interface FuzzTarget {
  readonly name: string;
  readonly seeds: readonly Seed[];
  /** What it may refuse bytes with. */
  readonly codes: readonly ErrorCode[];
  /** Decodes the bytes, and checks what comes out. */
  readonly run: (bytes: Buffer, random: Random) => unknown;
  /** Part of the rounds that it takes, where other targets try the same decoders alone. Default: 1. */
  readonly share?: number;
  /** Makes changed bytes right again where else they would be refused at the first look: checksums. */
  readonly repair?: (bytes: Buffer, random: Random) => void;
}

export interface FuzzResult {
  readonly taken: number;
  readonly refused: number;
}

/**
 * Tries a decoder with changed bytes. Throws an error that has the bytes in it when one is not decoded or refused, but
 * fails in another way.
 */
export async function fuzz(target: FuzzTarget, count: number, seed: number): Promise<FuzzResult> {
  const random = new Random(seed);
  const rounds = Math.ceil(count * (target.share ?? 1));
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    const bytes =
      round < target.seeds.length
        ? (target.seeds[round]?.bytes ?? Buffer.alloc(0))
        : mutate(random.of(target.seeds), random);
    if (round >= target.seeds.length) target.repair?.(bytes, random);
    try {
      await target.run(bytes, random);
      continue;
    } catch (error) {
      const isRefused = isLayercacheError(error, ...target.codes) && round >= target.seeds.length;
      if (!isRefused) throw new Error(report(target, round, seed, bytes), { cause: error });
    }
    refused++;
  }
  return { taken: rounds - refused, refused };
}

function report({ name }: FuzzTarget, round: number, seed: number, bytes: Buffer): string {
  return `${name}: round ${round} of seed ${seed} fails in a way that is no refusal, with the bytes ${bytes.toString('base64').slice(0, 200_000)}`;
}
