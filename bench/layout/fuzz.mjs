/**
 * The long form of the tests of the layout's decoders: 100,000 mutations of each format. Part of `npm run soak`; alone,
 * `node bench/layout/fuzz.mjs`, with MUTATIONS and SEED to choose how many and which.
 */
import { pathToFileURL } from 'node:url';
import { FORMATS, fuzz } from '../../packages/layout/dist/test/fuzz/decoders.js';

const MUTATIONS = Number(process.env.MUTATIONS ?? 100_000);

export async function fuzzDecoders() {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  for (const format of FORMATS) await fuzz(format, MUTATIONS, seed);
  console.log(
    `${MUTATIONS} mutations of each of ${FORMATS.length} formats from seed ${seed}: refused or understood`,
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await fuzzDecoders();
