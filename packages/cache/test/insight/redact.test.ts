import { expect } from 'chai';
import { redacted } from '../../src/index.js';

const identity = { home: '/home/alice', user: 'alice', host: 'alices-laptop' };
const clean = (text: string): unknown => redacted(text, identity);

describe('redaction', () => {
  const cases: readonly (readonly [what: string, given: string, expected: string])[] = [
    ['userinfo of a URL', 'https://me:hunter2@r.example/v2/', 'https://[redacted]@r.example/v2/'],
    ['userinfo with an @ in it', 'https://me:p@ss@r.example/v2/', 'https://[redacted]@r.example/v2/'],
    ['query and fragment of a URL', 'https://r.example/b?sig=abc&x=1#f', 'https://r.example/b?[redacted]'],
    ['userinfo without a scheme', 'me:hunter2@r.example/app:1', '[redacted]@r.example/app:1'],
    ['a bearer token', 'authorization: Bearer abcdef0123', 'authorization: [redacted] [redacted]'],
    ['basic credentials', 'sent Basic bWU6aHVudGVyMg==', 'sent Basic [redacted]'],
    ['a JWT', 'got eyJhbGciOi.eyJzdWIi.c2ln today', 'got [redacted] today'],
    ['tokens of hosts', 'ghp_0123456789abcdef and glpat-0123456789', '[redacted] and [redacted]'],
    ['an assigned secret', 'REGISTRY_PASSWORD=hunter2 rest', 'REGISTRY_PASSWORD=[redacted] rest'],
    ['the home folder', '/home/alice/.cache/layercache', '~/.cache/layercache'],
    ['the home folder of another', '/Users/bob/images', '/Users/[user]/images'],
    ['the user', 'r.example/alice/app:1', 'r.example/[user]/app:1'],
    ['the machine', 'on alices-laptop', 'on [host]'],
  ];
  for (const [what, given, expected] of cases) {
    it(`takes out ${what}`, () => {
      expect(clean(given)).to.equal(expected);
    });
  }

  it('leaves the names of images alone', () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    for (const name of ['docker.io/library/alpine:3.20', `r.example:5000/team/app:1@${digest}`, digest])
      expect(clean(name)).to.equal(name);
  });

  it('leaves longer words alone that have the user in them', () => {
    expect(clean('r.example/malice/app')).to.equal('r.example/malice/app');
  });

  it('shows nothing of what is longer than any name', () => {
    expect(clean(`me:${'x'.repeat(2_000_000)}`)).to.equal('[2000003 characters]');
  });

  it('does not take root or node for a person', () => {
    expect(redacted('/blobs/root rootfs node', { home: '/', user: 'root', host: 'node' })).to.equal(
      '/blobs/root rootfs node',
    );
  });

  it('looks into lists, fields and the names of fields, and keeps numbers and dates', () => {
    const when = new Date(0);
    expect(redacted({ a: [{ 'x:y@z': 'b:c@d' }, 7, null, true], when }, identity)).to.deep.equal({
      a: [{ '[redacted]@z': '[redacted]@d' }, 7, null, true],
      when: when.toISOString(),
    });
  });
});
