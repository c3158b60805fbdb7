import { digestOf, MediaType } from '@layercache/oci';
import { expect } from 'chai';
import { rateLimitOf } from '../../src/client/rate-limit.js';
import { RegistryClient } from '../../src/client/registry-client.js';
import { impatient, scripted } from './scripted.js';

describe('the pull limit of a registry', () => {
  it('is what its last answer said of it', async () => {
    const answers: Record<string, string>[] = [
      { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' },
      {},
      { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '75;w=21600' },
    ];
    await scripted(
      (_, response) => {
        response.writeHead(200, {
          'content-type': MediaType.manifest,
          'docker-content-digest': digestOf('a manifest'),
          'content-length': '10',
          ...answers.shift(),
        });
        response.end();
      },
      async (host, seen) => {
        const client = new RegistryClient(host, impatient);
        expect(client.rateLimit).to.equal(undefined);
        const remaining: (number | undefined)[] = [];
        for (let count = 0; count < 3; count++) {
          await client.resolve('library/app', '1');
          remaining.push(client.rateLimit?.remaining);
        }
        expect(remaining).to.deep.equal([76, 76, 75]);
        expect(client.rateLimit).to.deep.equal({ limit: 100, remaining: 75, window: 21600 });
        expect(seen.map(({ line }) => line.split(' ')[0])).to.deep.equal(['HEAD', 'HEAD', 'HEAD']);
      },
    );
  });

  it('may come without a window or a limit, and nonsense is no limit', () => {
    expect(rateLimitOf({ 'ratelimit-remaining': '5' })).to.deep.equal({
      limit: undefined,
      remaining: 5,
      window: undefined,
    });
    expect(rateLimitOf({ 'ratelimit-remaining': 'many', 'ratelimit-limit': '100' })).to.equal(undefined);
    expect(rateLimitOf({ 'ratelimit-limit': '100' })).to.equal(undefined);
  });
});
