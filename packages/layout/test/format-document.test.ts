import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { Annotation, MediaType, type Digest } from '@layercache/oci';
import type { Entry } from '../src/entry.js';
import { emptyHead } from '../src/index-document.js';
import { JOURNAL_HEADER, decodeChanges, decodeJournalHeader } from '../src/journal-format.js';
import { MapEncoder, PAGE, SLOT } from '../src/map-format.js';
import { decodeEntry, encodeEntry } from '../src/record.js';

/** The bytes of an example in docs/format.md: what follows a semicolon is a comment. */
function example(name: string): Buffer {
  const text = readFileSync(new URL('../../../../docs/format.md', import.meta.url), 'utf8');
  const [, block] = new RegExp(`\`\`\`hex ${name}\\n([^\`]*)\`\`\``).exec(text) ?? [];
  if (block === undefined) throw new Error(`there is no example ${name}`);
  return Buffer.from(block.replace(/;.*/g, '').replace(/\s/g, ''), 'hex');
}

const digestFrom = (start: string): Digest => `sha256:${start.padEnd(64, '0')}`;
const entry: Entry = {
  descriptor: {
    mediaType: MediaType.layerGzip,
    digest: digestFrom('83ee'),
    size: 300,
    annotations: { [Annotation.diffID]: digestFrom('9f32') },
  },
  proven: true,
};

describe('the examples in the description of the formats', () => {
  it('are the bytes of the entry that they describe', () => {
    expect(decodeEntry(example('entry'), 0)).to.deep.equal(entry);
    expect(encodeEntry(entry)).to.deep.equal(example('entry'));
  });

  it('are the slot by which a map finds that entry', () => {
    const encoder = new MapEncoder(7);
    encoder.add(entry);
    const index = { ino: 1n, size: 2n, mtimeNs: 3n };
    const { pages } = encoder.finish(emptyHead, { index, indexDigest: digestFrom('0'), foreign: false });
    const slots = pages.at(-1)!;
    const found = Array.from({ length: PAGE / SLOT }, (_, n) => slots.subarray(n * SLOT, (n + 1) * SLOT));
    expect(found.filter((slot) => slot.equals(example('slot')))).to.have.length(1);
  });

  it('are a journal with a torn record and a whole one', () => {
    const bytes = example('journal');
    const header = decodeJournalHeader(bytes)!;
    expect(header).to.deep.equal({ generation: 7, salt: 0x01020304 });
    const decoded = decodeChanges(bytes.subarray(JOURNAL_HEADER), header.salt);
    expect(decoded.changes).to.deep.equal([{ type: 'untag', name: 'app:2' }]);
    expect(decoded).to.include({ torn: 17, end: bytes.length - JOURNAL_HEADER });
  });
});
