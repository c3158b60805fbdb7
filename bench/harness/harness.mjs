// npm run harness -- verify
// npm run harness -- bench [IMAGE] [--json]
import { parseArgs } from 'node:util';
import { bench } from './bench.mjs';
import { verify } from './verify.mjs';

const USAGE = `Usage: npm run harness -- verify
       npm run harness -- bench [IMAGE] [--json]

verify  shows that layer indexes and the merged view are right; exits with 1 where they are not
bench   measures indexing of an image: a reference, oci:DIR[:name], or one made of this machine's own /usr`;

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: 'boolean' } } });
const [what, image, ...rest] = positionals;

if (what === 'verify' && image === undefined && values.json !== true) {
  process.exitCode = (await verify()) ? 0 : 1;
} else if (what === 'bench' && rest.length === 0) {
  await bench(image, values.json === true);
} else {
  console.error(USAGE);
  process.exitCode = 2;
}
