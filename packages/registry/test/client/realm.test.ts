import { expect } from 'chai';
import { parseRealm, type Home } from '../../src/client/realm.js';

const at = (base: string, plainHttp = false): Home => ({
  registry: new URL(base).host,
  base: new URL(base),
  plainHttp,
});
const REMOTE = at('https://registry.example/v2/');
const LOCAL = at('http://127.0.0.1:5000/v2/');
const PLAIN = at('http://registry.example/v2/', true);

describe('the token service of a registry', () => {
  const accepted: readonly [string, Home][] = [
    ['https://auth.example/token', REMOTE],
    ['https://auth.example:8443/token?x=1', REMOTE],
    ['https://10.0.0.5/token', REMOTE],
    ['https://registry.example/token', REMOTE],
    ['https://auth.example/token', LOCAL],
    ['http://localhost:5001/token', LOCAL],
    ['http://[::1]:5001/token', LOCAL],
    ['http://auth.example/token', PLAIN],
    ['https://auth.example/token', PLAIN],
    ['http://169.254.1.2:5000/token', at('http://169.254.1.2:5000/v2/', true)],
  ];
  for (const [realm, home] of accepted) {
    it(`may be ${realm} for ${home.base.origin}`, () => {
      expect(parseRealm(realm, home).href).to.equal(realm);
    });
  }

  const refused: readonly [string, Home, string][] = [
    ['http://auth.example/token', REMOTE, 'not an HTTPS address'],
    ['http://registry.example/token', REMOTE, 'not an HTTPS address'],
    ['http://localhost/token', REMOTE, 'not an HTTPS address'],
    ['http://auth.example/token', LOCAL, 'not an HTTPS address'],
    ['ftp://auth.example/token', REMOTE, 'not an HTTPS address'],
    ['file:///etc/passwd', PLAIN, 'not an HTTPS address'],
    ['javascript:alert(1)', PLAIN, 'not an HTTPS address'],
    ['/token', REMOTE, 'not an HTTPS address'],
    ['', REMOTE, 'not an HTTPS address'],
    ['https://alice:word@auth.example/token', REMOTE, 'user name'],
    ['https://auth.example@evil.example/token', REMOTE, 'user name'],
    ['https://localhost/token', REMOTE, 'this machine'],
    ['https://localhost./token', REMOTE, 'this machine'],
    ['https://app.localhost/token', REMOTE, 'this machine'],
    ['https://127.1/token', REMOTE, 'this machine'],
    ['https://2130706433/token', REMOTE, 'this machine'],
    ['https://[::1]/token', REMOTE, 'this machine'],
    ['https://[::ffff:127.0.0.1]/token', REMOTE, 'this machine'],
    ['http://127.0.0.1/token', PLAIN, 'this machine'],
    ['http://169.254.169.254/latest/meta-data/', PLAIN, 'no public host'],
    ['https://169.254.169.254/token', LOCAL, 'no public host'],
    ['https://[::ffff:169.254.169.254]/token', REMOTE, 'no public host'],
    ['https://[fe80::1]/token', REMOTE, 'no public host'],
    ['https://0.0.0.0/token', REMOTE, 'no public host'],
    ['https://0/token', REMOTE, 'no public host'],
    ['https://[::]/token', REMOTE, 'no public host'],
  ];
  for (const [realm, home, why] of refused) {
    it(`may not be ${JSON.stringify(realm)} for ${home.base.origin}`, () => {
      expect(() => parseRealm(realm, home))
        .to.throw(why)
        .with.property('code', 'UNAUTHORIZED');
    });
  }
});
