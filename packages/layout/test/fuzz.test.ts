import { FORMATS, fuzz } from './fuzz/decoders.js';

describe('bytes that are not what was written', function () {
  this.timeout(60_000);
  for (const format of FORMATS) {
    it(`are refused or understood, and never a crash: ${format}`, () => fuzz(format, 2000, 1));
  }
});
