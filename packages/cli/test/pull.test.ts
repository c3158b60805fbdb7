import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import type { MadeImage } from '../src/demo/make-image.js';
import { Bench } from './program.js';

interface ListedLayer {
  readonly diffID: string;
  readonly state: string;
  readonly forms: readonly { readonly digest: string; readonly state: string }[];
}

describe('layercache pull', function () {
  // Each run starts a process.
  this.timeout(60_000);
  let bench: Bench;
  let image: MadeImage;
  let target: string;
  before(async () => {
    bench = await Bench.open();
    image = await bench.pushImage();
    target = `${bench.host}/team/cache:main`;
    expect((await bench.run('add', `${bench.host}/demo/app:1`)).code).to.equal(0);
    expect((await bench.run('push', target)).code).to.equal(0);
  });
  after(() => bench.close());

  const inOther = (name: string, ...args: string[]): ReturnType<Bench['run']> =>
    bench.run('--cache', `${bench.dir}/${name}`, ...args);

  it('brings the cache here, and nothing the second time', async () => {
    const first = await inOther('whole', 'pull', target);
    expect(first.code, first.stderr).to.equal(0);
    expect(first.stderr).to.match(/^3 blobs fetched/);
    const again = JSON.parse((await inOther('whole', '--json', 'pull', target)).stdout.toString()) as {
      received: unknown;
    };
    expect(again.received).to.deep.equal({ blobs: 0, bytes: 0 });
  });

  it('--lazy leaves the blobs there; ls and inspect tell which are here', async () => {
    const pulled = await inOther('lazy', 'pull', '--lazy', target);
    expect(pulled.code, pulled.stderr).to.equal(0);
    expect(pulled.stderr).to.contain('3 left there until they are asked for');
    const { descriptor, diffID } = image.layers[0]!;
    const got = await inOther('lazy', 'get', descriptor.digest);
    expect(digestOf(got.stdout)).to.equal(descriptor.digest);

    const { layers } = JSON.parse((await inOther('lazy', '--json', 'ls')).stdout.toString()) as {
      layers: ListedLayer[];
    };
    const states = new Map(layers.map((layer) => [layer.diffID, layer.state]));
    expect(states.get(diffID)).to.equal('local');
    expect(states.get(image.layers[1]!.diffID)).to.equal('remote');
    expect((await inOther('lazy', 'ls', '--layers')).stdout.toString()).to.match(/claimed\s+remote/);
    const inspected = JSON.parse(
      (await inOther('lazy', 'inspect', image.layers[1]!.diffID)).stdout.toString(),
    ) as ListedLayer;
    expect(inspected.state).to.equal('remote');

    const tar = await inOther('lazy', 'get', image.layers[1]!.diffID);
    expect(digestOf(tar.stdout)).to.equal(image.layers[1]!.diffID);
  });

  it('from where there is no cache is not found', async () => {
    expect((await inOther('none', 'pull', `${bench.host}/team/nothing:main`)).code).to.equal(3);
  });
});
