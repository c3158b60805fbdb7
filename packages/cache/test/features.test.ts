import { existsSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import * as library from '../src/index.js';
import { Scratch } from './test-cache.js';

const root = new URL('../../../../', import.meta.url);
const text = readFileSync(new URL('docs/features.md', root), 'utf8');
const all = (pattern: RegExp): RegExpExecArray[] => [...text.matchAll(pattern)];

describe('the page of features', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('names calls that exist', async () => {
    const cache = await scratch.cache();
    const calls = new Set(all(/`cache\.([a-zA-Z.]+)`/g).map(([, path = '']) => path));
    expect(calls.size).to.be.greaterThan(30);
    for (const path of calls) {
      let value: unknown = cache;
      for (const name of path.split('.')) value = (value as Record<string, unknown>)[name];
      expect(value, `cache.${path}`).to.exist;
    }
    for (const name of ['costAware', 'lru', 'ttl', 'size', 'composite'])
      expect(library, name).to.have.property(name);
  });

  it('names tests that exist', () => {
    const tests = all(/`([a-z/-]+\.test\.ts)`: "(.+?)" +\|/g);
    expect(tests.length).to.be.greaterThan(30);
    for (const [, file = '', title = ''] of tests) {
      const path = new URL(`packages/cache/test/${file}`, root);
      expect(existsSync(path), file).to.equal(true);
      expect(readFileSync(path, 'utf8'), `${file}: ${title}`).to.contain(title);
    }
  });

  it('names codes that exist', () => {
    const errors = readFileSync(new URL('packages/oci/src/errors.ts', root), 'utf8');
    const codes = all(/`([A-Z]+(?:_[A-Z]+)+|EXPIRED|INVALIDATED|NETWORK)`/g).map(([, code = '']) => code);
    expect(codes.length).to.be.greaterThan(5);
    for (const code of codes) expect(errors).to.contain(`| '${code}'`);
  });
});
