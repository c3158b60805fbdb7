import type { IncomingMessage, ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import { digestOf, MediaType } from '@layercache/oci';
import { expect } from 'chai';
import { parseChallenges } from '../../src/client/challenge.js';
import type { Credentials } from '../../src/client/credentials.js';
import { RegistryClient } from '../../src/client/registry-client.js';
import { redirectTarget } from '../../src/client/transport.js';
import { RegistryError } from '../../src/registry-error.js';
import type { RequestHandler } from '../../src/server/registry-handler.js';
import { failureOf, fronted, impatient, scripted, sendJson, type Seen } from './scripted.js';

const BLOB = Buffer.from('a layer');
const DESCRIPTOR = { digest: digestOf(BLOB), size: BLOB.length };
const ALICE: Credentials = { kind: 'password', username: 'alice', password: 'pa:ss' };
const ALICE_BASIC = `Basic ${Buffer.from('alice:pa:ss').toString('base64')}`;

function holding(credentials: Credentials): { credentials: { get: () => Promise<Credentials> } } {
  return { credentials: { get: () => Promise.resolve(credentials) } };
}

interface TokenService {
  readonly wrap: (handler: RequestHandler) => RequestHandler;
  /** What was asked of it: query or form, and who asked. */
  readonly asked: { readonly query: URLSearchParams; readonly authorization: string | undefined }[];
  /** Lets no token pass that was given so far. */
  revoke(): void;
}

/** A registry's token service that gives tokens for exactly the scopes asked for, and checks them. */
function tokenService(expiresIn = 300): TokenService {
  const asked: TokenService['asked'] = [];
  const given = new Map<string, readonly string[]>();
  const giveToken = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let query = new URL(request.url ?? '/', 'http://registry').searchParams;
    if (request.method === 'POST') {
      let form = '';
      for await (const chunk of request as AsyncIterable<Buffer>) form += chunk.toString();
      query = new URLSearchParams(form);
    }
    asked.push({ query, authorization: request.headers.authorization });
    const token = `token-${given.size}`;
    given.set(
      token,
      query.getAll('scope').flatMap((scope) => scope.split(' ')),
    );
    sendJson(response, 200, { access_token: token, expires_in: expiresIn });
  };
  const wrap =
    (handler: RequestHandler): RequestHandler =>
    (request, response) => {
      const path = request.url ?? '/';
      if (path.startsWith('/token')) {
        void giveToken(request, response);
        return;
      }
      const name = /^\/v2\/(.+?)\/(?:blobs|manifests|tags|referrers)\//.exec(path)?.[1] ?? '';
      const action = request.method === 'GET' || request.method === 'HEAD' ? 'pull' : 'push';
      const scopes = given.get(request.headers.authorization?.replace('Bearer ', '') ?? '') ?? [];
      const allowed = scopes.some((scope) => {
        const [, repository, actions = ''] = /^repository:(.+):(.*)$/.exec(scope) ?? [];
        return repository === name && actions.split(',').includes(action);
      });
      if (allowed) {
        handler(request, response);
        return;
      }
      request.resume();
      const realm = `http://${request.headers.host}/token`;
      const challenge = `Bearer realm="${realm}",service="test",scope="repository:${name}:${action}"`;
      sendJson(response, 401, { errors: [{ code: 'UNAUTHORIZED' }] }, { 'www-authenticate': challenge });
    };
  return {
    wrap,
    asked,
    revoke: () => {
      given.clear();
    },
  };
}

describe('a registry with tokens', () => {
  it('is asked for narrow ones, once for each scope', () => {
    const tokens = tokenService();
    return fronted(tokens.wrap, async (client) => {
      for (let round = 0; round < 3; round++) {
        await client.pushBlob('app', DESCRIPTOR, () => [BLOB]);
        await client.blobSize('app', DESCRIPTOR.digest);
      }
      const scopes = tokens.asked.map(({ query }) => query.getAll('scope'));
      expect(scopes).to.deep.equal([
        ['repository:app:pull,push', 'repository:app:push'],
        ['repository:app:pull'],
      ]);
      expect(tokens.asked[0]?.query.get('service')).to.equal('test');
    });
  });

  it('gets a user’s name and password at its token service, and nowhere else', () => {
    const tokens = tokenService();
    const seen: (string | undefined)[] = [];
    const wrap = (handler: RequestHandler): RequestHandler => {
      const inner = tokens.wrap(handler);
      return (request, response) => {
        if (request.url?.startsWith('/v2/') === true) seen.push(request.headers.authorization);
        inner(request, response);
      };
    };
    return fronted(
      wrap,
      async (client) => {
        await client.blobSize('app', DESCRIPTOR.digest);
        expect(tokens.asked[0]?.authorization).to.equal(ALICE_BASIC);
        expect(tokens.asked[0]?.query.get('account')).to.equal('alice');
        expect(seen).to.deep.equal([undefined, 'Bearer token-0']);
      },
      holding(ALICE),
    );
  });

  it('gets an identity token by the form of OAuth2', () => {
    const tokens = tokenService();
    return fronted(
      tokens.wrap,
      async (client) => {
        await client.blobSize('app', DESCRIPTOR.digest);
        const form = Object.fromEntries(tokens.asked[0]!.query);
        expect(form).to.include({
          grant_type: 'refresh_token',
          refresh_token: 'secret',
          service: 'test',
          scope: 'repository:app:pull',
        });
      },
      holding({ kind: 'identity', token: 'secret' }),
    );
  });

  it('is asked again when a token has expired, or is refused before', () => {
    const tokens = tokenService(1);
    return fronted(tokens.wrap, async (client) => {
      await client.blobSize('app', DESCRIPTOR.digest);
      await client.blobSize('app', DESCRIPTOR.digest);
      expect(tokens.asked).to.have.length(1);
      tokens.revoke();
      await client.blobSize('app', DESCRIPTOR.digest);
      expect(tokens.asked).to.have.length(2);
      await new Promise((resolve) => setTimeout(resolve, 850));
      await client.blobSize('app', DESCRIPTOR.digest);
      expect(tokens.asked).to.have.length(3);
    });
  });

  it('is asked once by many who need the same token', () => {
    const tokens = tokenService();
    return fronted(tokens.wrap, async (client) => {
      await client.blobSize('app', DESCRIPTOR.digest);
      const { asked } = tokens;
      asked.length = 0;
      await Promise.all(Array.from({ length: 8 }, () => client.pushBlob('app', DESCRIPTOR, () => [BLOB])));
      // The first token for pushing, and the one with what the challenges asked for beyond it.
      expect(asked.length).to.be.at.most(2);
    });
  });

  it('gets the scope of both repositories for a mount', () => {
    const tokens = tokenService();
    return fronted(tokens.wrap, async (client, registry) => {
      await registry.pushBlob('base', DESCRIPTOR, () => [BLOB]);
      expect(await client.mountBlob('app', DESCRIPTOR.digest, 'base')).to.equal(true);
      const scopes = tokens.asked.at(-1)?.query.getAll('scope');
      expect(scopes).to.include('repository:base:pull').and.to.include('repository:app:pull,push');
    });
  });
});

describe('a registry with Basic authentication', () => {
  const guarded =
    (handler: RequestHandler): RequestHandler =>
    (request, response) => {
      if (request.headers.authorization === ALICE_BASIC) {
        handler(request, response);
        return;
      }
      request.resume();
      response.writeHead(401, { 'www-authenticate': ['Negotiate', 'Basic realm="here"'] }).end();
    };

  it('gets name and password', () =>
    fronted(
      guarded,
      async (client, registry) => {
        await client.pushBlob('app', DESCRIPTOR, () => [BLOB]);
        expect(await registry.blobSize('app', DESCRIPTOR.digest)).to.equal(BLOB.length);
      },
      holding(ALICE),
    ));

  it('without credentials says what to do', () =>
    fronted(guarded, async (client, _, host) => {
      const failure = await failureOf(client.resolve('app', 'v1'));
      expect(failure.code).to.equal('UNAUTHORIZED');
      expect(failure.message).to.include(`docker login ${host}`);
    }));

  it('that refuses them is asked once', () =>
    scripted(
      (_, response) => response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end(),
      async (host, seen) => {
        const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
        expect((await failureOf(client.resolve('app', 'v1'))).code).to.equal('UNAUTHORIZED');
        expect(seen).to.have.length(2);
      },
    ));
});

describe('credentials', () => {
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }));

  it('do not follow a redirect to another host', () =>
    scripted(
      (_, response) => response.writeHead(200, { 'content-type': MediaType.index }).end(manifest),
      async (elsewhere, seenElsewhere) => {
        await scripted(
          ({ headers, url }, response) => {
            if (headers.authorization === undefined) {
              response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
            } else response.writeHead(307, { location: `http://${elsewhere}${url}` }).end();
          },
          async (host) => {
            const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
            await client.fetchManifest('app', 'v1');
            expect(seenElsewhere.map(({ headers }) => headers.authorization)).to.deep.equal([undefined]);
          },
        );
      },
    ));

  it('go along on a redirect within the registry', () =>
    scripted(
      ({ headers, url }, response) => {
        if (headers.authorization === undefined) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
        } else if (url === '/moved') {
          response.writeHead(200, { 'content-type': MediaType.index }).end(manifest);
        } else response.writeHead(302, { location: '/moved' }).end();
      },
      async (host, seen) => {
        await new RegistryClient(host, { ...impatient, ...holding(ALICE) }).fetchManifest('app', 'v1');
        expect(seen.at(-1)?.headers.authorization).to.equal(ALICE_BASIC);
      },
    ));

  it('do not go to a token service on plain HTTP that is not this machine', () =>
    scripted(
      (_, response) =>
        response.writeHead(401, { 'www-authenticate': 'Bearer realm="ftp://example.com/token"' }).end(),
      async (host) => {
        const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
        const failure = await failureOf(client.resolve('app', 'v1'));
        expect(failure.code).to.equal('UNAUTHORIZED');
        expect(failure.message).to.include('ftp://example.com/token');
      },
    ));

  it('do not go to the host that an upload is sent on to', () =>
    scripted(
      (_, response) => response.writeHead(201).end(),
      async (elsewhere, seenElsewhere: Seen) => {
        await scripted(
          (request, response) => {
            request.resume();
            if (request.headers.authorization === undefined) {
              response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
            } else response.writeHead(202, { location: `http://${elsewhere}/upload` }).end();
          },
          async (host) => {
            const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
            const failure = await failureOf(client.pushBlob('app', DESCRIPTOR, () => [BLOB]));
            expect(failure.message).to.include(`another host, ${elsewhere}`);
            expect(seenElsewhere).to.deep.equal([]);
          },
        );
      },
    ));

  it('do not come back with a redirect by another host', () => {
    let elsewhere = '';
    return scripted(
      (request, response) => {
        if (request.url === '/back') {
          response.writeHead(200, { 'content-type': MediaType.index }).end(manifest);
        } else if (request.headers.authorization === undefined) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
        } else response.writeHead(307, { location: `http://${elsewhere}/x` }).end();
      },
      (host, seen) =>
        scripted(
          (_, response) => response.writeHead(307, { location: `http://${host}/back` }).end(),
          async (place) => {
            elsewhere = place;
            await new RegistryClient(host, { ...impatient, ...holding(ALICE) }).fetchManifest('app', 'v1');
            expect(seen.map(({ line, headers }) => [line, headers.authorization])).to.deep.equal([
              ['GET /v2/app/manifests/v1', undefined],
              ['GET /v2/app/manifests/v1', ALICE_BASIC],
              ['GET /back', undefined],
            ]);
          },
        ),
    );
  });

  it('of a token service that sends on to another host stay there', () =>
    scripted(
      (_, response) => {
        sendJson(response, 200, { token: 'x' });
      },
      (elsewhere, seenElsewhere) =>
        scripted(
          ({ url, headers }, response) => {
            if (url?.startsWith('/token') === true)
              response.writeHead(302, { location: `http://${elsewhere}/token` }).end();
            else
              response
                .writeHead(401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` })
                .end();
          },
          async (host) => {
            const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
            const failure = await failureOf(client.resolve('app', 'v1'));
            expect(failure.message).to.include('redirected to another host');
            expect(seenElsewhere).to.deep.equal([]);
          },
        ),
    ));

  it('are not shown to a redirect’s target by the URL of the redirect', () =>
    scripted(
      (_, response) => response.writeHead(200, { 'content-type': MediaType.index }).end(manifest),
      (elsewhere, seenElsewhere) =>
        scripted(
          ({ url }, response) =>
            response.writeHead(307, { location: `http://mallory:word@${elsewhere}${url}` }).end(),
          async (host) => {
            await new RegistryClient(host, impatient).fetchManifest('app', 'v1');
            expect(seenElsewhere.map(({ headers }) => headers.authorization)).to.deep.equal([undefined]);
          },
        ),
    ));

  it('are no part of an error about what a token service answers', async () => {
    for (const answer of [
      'secret-token',
      '{"token":"secret-token',
      '{"token":"secret-token\\n"}',
      '{"token":7}',
    ]) {
      await scripted(
        ({ url, headers }, response) => {
          if (url?.startsWith('/token') === true) response.writeHead(200).end(answer);
          else
            response
              .writeHead(401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token"` })
              .end();
        },
        async (host) => {
          const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
          const failure = await failureOf(client.resolve('app', 'v1'));
          expect(failure.code, answer).to.equal('UNAUTHORIZED');
          expect(inspect(failure), answer).to.include('answered with').and.not.to.include('secret-token');
        },
      );
    }
  });

  it('that are refused a token are reported without them', () =>
    scripted(
      ({ url, headers }, response) => {
        if (url?.startsWith('/token') === true) sendJson(response, 403, { details: 'no' });
        else
          response
            .writeHead(401, { 'www-authenticate': `Bearer realm="http://${headers.host}/token?x=1"` })
            .end();
      },
      async (host) => {
        const client = new RegistryClient(host, { ...impatient, ...holding(ALICE) });
        const failure = await failureOf(client.resolve('app', 'v1'));
        expect(failure.code).to.equal('UNAUTHORIZED');
        expect(failure.message).to.include('status 403').and.not.to.include('pa:ss');
      },
    ));
});

describe('redirects', () => {
  it('in a circle end', () =>
    scripted(
      ({ url }, response) =>
        response.writeHead(302, { location: url === '/a?secret' ? '/b' : '/a?secret' }).end(),
      async (host, seen) => {
        const failure = await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(failure.code).to.equal('REGISTRY');
        expect(failure.message).to.include('in a circle').and.not.to.include('secret');
        expect(seen.length).to.be.below(6);
      },
    ));

  it('without end, end', () => {
    let hop = 0;
    return scripted(
      (_, response) => response.writeHead(302, { location: `/${(hop += 1)}` }).end(),
      async (host, seen) => {
        await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(seen).to.have.length(11);
      },
    );
  });

  it('from HTTPS to HTTP are refused, and their query is not shown', () => {
    const from = new URL('https://registry.example/v2/app/blobs/x');
    expect(redirectTarget(from, 'https://cdn.example/x').href).to.equal('https://cdn.example/x');
    expect(redirectTarget(from, '/y').href).to.equal('https://registry.example/y');
    for (const target of [
      'http://registry.example/y?signature',
      'http://127.0.0.1/y?signature',
      'http://[?signature',
    ]) {
      expect(() => redirectTarget(from, target), target).to.throw(RegistryError);
    }
    expect(() => redirectTarget(from, 'http://cdn.example/x?signature'))
      .to.throw('not HTTPS')
      .with.property('message')
      .that.does.not.include('signature');
  });

  it('to what is no web address are refused', () =>
    scripted(
      (_, response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(),
      async (host) => {
        const failure = await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(failure.message).to.include('not HTTPS');
      },
    ));
});

describe('parseChallenges', () => {
  it('reads several challenges, quotes and escapes', () => {
    const header = String.raw`Negotiate, Basic realm="a \"b\", c" , BEARER Realm="https://x",service=s`;
    expect(
      parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]),
    ).to.deep.equal([
      ['negotiate', {}],
      ['basic', { realm: 'a "b", c' }],
      ['bearer', { realm: 'https://x', service: 's' }],
    ]);
  });

  it('reads on after a scheme with a token of its own', () => {
    for (const first of ['Negotiate abc==', 'Negotiate YII/+.~_-', 'Negotiate', 'NTLM TlRM ']) {
      const challenges = parseChallenges(`${first}, Bearer realm="https://x",service=s`);
      expect(challenges[0]?.parameters.size, first).to.equal(0);
      expect(challenges[1], first).to.deep.equal({
        scheme: 'bearer',
        parameters: new Map([
          ['realm', 'https://x'],
          ['service', 's'],
        ]),
      });
    }
  });

  it('reads what it can of nonsense', () => {
    for (const text of ['', ',,,', '"', '=', 'Bearer realm="open', 'Bearer =', '\u0000']) {
      expect(() => parseChallenges(text), text).not.to.throw();
    }
  });
});
