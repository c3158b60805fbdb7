import type { OciLayout, StagedBlob } from '@layercache/layout';
import type { ByteSource, OpenSpool } from '@layercache/registry';

/** The unfinished uploads of a cache: files of its layout, within its limits. */
export class StagedUploads {
  readonly #layout: OciLayout;
  readonly #bySource = new WeakMap<ByteSource, StagedBlob>();

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  readonly openSpool: OpenSpool = async () => {
    const staged = await this.#layout.stage();
    const source: ByteSource = () => staged.read();
    this.#bySource.set(source, staged);
    return {
      get size() {
        return staged.size;
      },
      source,
      append: (bytes, options) => staged.append(bytes, options),
      discard: () => staged.discard(),
    };
  };

  /** The upload whose bytes a source gives, if it is one of this cache. */
  of(source: ByteSource): StagedBlob | undefined {
    return this.#bySource.get(source);
  }
}
