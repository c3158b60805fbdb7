import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, type Descriptor, type Digest } from '@layercache/oci';
import { OciLayout, verify, type LayoutExtension } from '../src/index.js';
import { inScratch, manifestNamed } from './scratch.js';

const isLong = process.env.LAYERCACHE_SOAK !== undefined;
/** More than any engine takes as the arguments of one call. */
const MANY = isLong ? 400_000 : 130_000;

/** As digests are, the leading digits are those that differ. */
function layer(kind: number, n: number): Descriptor {
  const leading = (Math.imul(n, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0');
  const digest: Digest = `sha256:${leading}${String(kind).repeat(56)}`;
  return { mediaType: MediaType.layerGzip, digest, size: n };
}

function writeIndex(dir: string, manifests: readonly Descriptor[]): void {
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
}

describe(`a layout of ${MANY} entries`, function () {
  this.timeout(300_000);

  it(`is opened, adopted from one manifest, edited by another tool, and ${isLong ? 'repaired' : 'committed'}`, async () => {
    await inScratch(async (dir) => {
      const adopted = Array.from({ length: MANY }, (_, n) => layer(1, n));
      const extension: LayoutExtension = {
        adopt: ({ manifests }) => Promise.resolve(manifests.length === 0 ? [] : adopted),
        derive: () => Promise.resolve({ put: [], drop: [], unlink: [] }),
      };
      writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
      writeIndex(dir, [manifestNamed('app:1')]);
      const layout = await OciLayout.open(dir, { extension });
      const count = (): number => Array.from(layout.entries()).length;
      expect(count()).to.equal(MANY + 1);

      const { manifests } = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')) as {
        manifests: Descriptor[];
      };
      writeIndex(dir, [...manifests, layer(2, 1)]);
      await new Promise((resolve) => setTimeout(resolve, 60));
      expect(layout.lookup(layer(2, 1).digest)).to.have.length(1);

      if (!isLong) {
        await layout.sync();
        expect(count()).to.equal(MANY + 2);
        await layout.close();
        return;
      }
      const isElsewhere = ({ mediaType }: Descriptor): Promise<boolean> =>
        Promise.resolve(mediaType === MediaType.manifest);
      const report = await verify(layout, { repair: true, isElsewhere });
      expect(report.found.missing).to.equal(MANY + 1);
      expect(count()).to.equal(1);
      await layout.close();
    });
  });
});
