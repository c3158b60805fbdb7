import { expect } from 'chai';
import fc from 'fast-check';
import { escapeJson, escapeLine, escapeLines } from '../src/escape.js';
import { formatTable } from '../src/output.js';

const UNSEEN: Readonly<Record<string, string>> = {
  '\u0000': String.raw`\x00`,
  '\u0007': String.raw`\x07`,
  '\b': String.raw`\x08`,
  '\t': String.raw`\x09`,
  '\n': String.raw`\x0a`,
  '\r': String.raw`\x0d`,
  '\u001b': String.raw`\x1b`,
  '\u007f': String.raw`\x7f`,
  '\u009b': String.raw`\x9b`,
  '\u00ad': String.raw`\xad`,
  '\u061c': String.raw`\u061c`,
  '\u200b': String.raw`\u200b`,
  '\u200e': String.raw`\u200e`,
  '\u2028': String.raw`\u2028`,
  '\u202e': String.raw`\u202e`,
  '\u2066': String.raw`\u2066`,
  '\u2069': String.raw`\u2069`,
  '\u3164': String.raw`\u3164`,
  '\ufeff': String.raw`\ufeff`,
  '\ud800': String.raw`\ud800`,
  '\udc80': String.raw`\udc80`,
  '\u{e0041}': String.raw`\u{e0041}`,
};

/** Text of all kinds of characters, halves of surrogate pairs among them. */
const anyText = fc
  .array(
    fc.oneof(
      fc.constantFrom(...Object.keys(UNSEEN), '\\', '"', 'é', '漢', '🚀', ' '),
      fc.string({ unit: 'binary', maxLength: 3 }),
      fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)),
    ),
  )
  .map((parts) => parts.join(''));

/** By code, so that the test does not rest on the pattern it tests. */
function isPlain(text: string): boolean {
  return Array.from(text).every((character) => {
    const code = character.codePointAt(0) ?? 0;
    const isControl = code < 0x20 || (code >= 0x7f && code < 0xa0);
    const isFormat =
      (code >= 0x200b && code <= 0x200f) ||
      (code >= 0x2028 && code <= 0x202e) ||
      (code >= 0x2060 && code <= 0x206f);
    const isHalf = code >= 0xd800 && code <= 0xdfff;
    return !(isControl || isFormat || isHalf || code === 0xfeff || (code >= 0xe0000 && code <= 0xe0fff));
  });
}

describe('text for a terminal', () => {
  for (const [character, escaped] of Object.entries(UNSEEN)) {
    it(`has ${escaped} in place of the character`, () => {
      expect(escapeLine(`a${character}b`)).to.equal(`a${escaped}b`);
    });
  }

  it('is as it was where all of it can be seen', () => {
    for (const text of ['', 'docker.io/library/alpine:3.20', String.raw`C:\dir\x1b`, 'naïve “漢字” 🚀 …']) {
      expect(escapeLine(text)).to.equal(text);
    }
  });

  it('has nothing that a terminal obeys, whatever it is made of', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const line = escapeLine(text);
        expect(isPlain(line)).to.equal(true);
        // What is escaped already is not escaped again.
        expect(escapeLine(line)).to.equal(line);
        const lines = escapeLines(text).split('\n');
        expect(lines).to.deep.equal(text.split('\n').map(escapeLine));
      }),
    );
  });

  it('as JSON is the same value', () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          anyText.filter((key) => key !== '__proto__'),
          fc.oneof(anyText, fc.array(anyText)),
        ),
        (value) => {
          const json = escapeJson(JSON.stringify(value, undefined, 2));
          expect(JSON.parse(json)).to.deep.equal({ ...value });
          expect(json.split('\n').every(isPlain)).to.equal(true);
        },
      ),
    );
    expect(escapeJson(JSON.stringify('\u007f\u202e\u{e0041}'))).to.equal(
      String.raw`"\u007f\u202e\udb40\udc41"`,
    );
  });

  it('in a table keeps to its cell', () => {
    expect(
      formatTable(
        ['NAME', 'SIZE'],
        [
          ['a\nb\u001b', '1'],
          ['c', '2'],
        ],
      ),
    ).to.deep.equal(['NAME        SIZE', String.raw`a\x0ab\x1b  1`, 'c           2']);
  });
});
