import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { MediaType, digestOf, isLayercacheError, type Digest } from '@layercache/oci';
import { expect } from 'chai';
import type { Credentials } from '../../src/client/credentials.js';
import { RegistryClient } from '../../src/client/registry-client.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { createRegistryServer, type RegistryServer } from '../../src/server/registry-server.js';
import { memorySpools } from '../../src/server/upload-spool.js';
import { bytesOf, impatient } from './scripted.js';

/** A registry, its token service and a stranger: three servers, and the stranger has two names. */
const PASSWORD = 'the-password';
const REFRESH_TOKEN = 'the-refresh-token';
const BASIC = `Basic ${Buffer.from(`alice:${PASSWORD}`).toString('base64')}`;
const SECRETS = [PASSWORD, REFRESH_TOKEN, BASIC.slice(6), 'issued-token'];

type Scheme = 'basic' | 'password for a token' | 'identity token';
const SCHEMES: readonly Scheme[] = ['basic', 'password for a token', 'identity token'];

const BLOB = Buffer.from('a layer of some bytes');
const LARGE = Buffer.alloc(4.5 * 1024 * 1024, 'large');
const CONFIG = Buffer.from('{}');
const described = (bytes: Uint8Array): { digest: Digest; size: number } => ({
  digest: digestOf(bytes),
  size: bytes.length,
});
const manifestOf = (extra: object): Buffer =>
  Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      config: { mediaType: MediaType.config, ...described(CONFIG) },
      layers: [{ mediaType: MediaType.layerGzip, ...described(BLOB) }],
      ...extra,
    }),
  );
const MANIFEST = manifestOf({});
const REFERRER = manifestOf({
  subject: { mediaType: MediaType.manifest, ...described(MANIFEST) },
  artifactType: 'application/x',
});

/** Where the servers of one test are. */
interface Places {
  readonly registry: string;
  readonly tokens: string;
  /** The stranger, by one of its names. */
  readonly stranger: string;
}

type Answer = (request: IncomingMessage, response: ServerResponse, places: Places) => void;

const challenge =
  (header: (places: Places) => string): Answer =>
  (_, response, places) =>
    response.writeHead(401, { 'www-authenticate': header(places) }).end();
const redirect =
  (status: number, place: (places: Places) => string): Answer =>
  (request, response, places) =>
    response.writeHead(status, { location: `http://${place(places)}${request.url}` }).end();

/** What the stranger says to a client that comes to it. */
const LURES: Readonly<Record<string, Answer>> = {
  'asks for a token of its own': challenge(
    ({ stranger }) => `Bearer realm="http://${stranger}/token",service="stranger",scope="all"`,
  ),
  'asks for a token of the registry’s service': challenge(
    ({ tokens }) => `Bearer realm="http://${tokens}/token",service="stranger",scope="all"`,
  ),
  'asks for name and password': challenge(() => 'Basic realm="registry"'),
  'redirects back': redirect(307, ({ registry }) => registry),
  'leads on to itself': (_, response, { stranger }) =>
    response
      .writeHead(202, {
        location: `http://${stranger}/upload`,
        link: `<http://${stranger}/next>; rel="next"`,
        'content-type': MediaType.index,
      })
      .end('{"schemaVersion":2,"manifests":[],"tags":[],"repositories":[]}'),
  'leads back to the registry': (request, response, { registry }) =>
    response
      .writeHead(request.method === 'GET' ? 200 : 202, {
        location: `http://${registry}/v2/app/blobs/uploads/1`,
        link: `<http://${registry}/v2/app/tags/list?page=2>; rel="next"`,
        'content-type': MediaType.index,
      })
      .end('{"schemaVersion":2,"manifests":[],"tags":[],"repositories":[]}'),
};

interface Trick {
  /** When it is played: on requests with credentials that are right, on those without, on those for a token. */
  readonly on: 'authorized' | 'anonymous' | 'token';
  /** Whether the client has had an honest answer of the registry before. */
  readonly isLate: boolean;
  /** Requests it is played on. Default: all. */
  readonly paths?: RegExp;
  readonly play: Answer;
}

const LISTS = /^\/v2\/(?:_catalog|app\/(?:tags\/list|referrers\/))/;
const list =
  (link: (places: Places) => string): Answer =>
  (_, response, places) =>
    response
      .writeHead(200, { link: `<${link(places)}>; rel="next"`, 'content-type': MediaType.index })
      .end('{"schemaVersion":2,"manifests":[],"tags":[],"repositories":[]}');
const location =
  (place: (places: Places) => string): Answer =>
  (_, response, places) =>
    response.writeHead(202, { location: place(places) }).end();

/** How a client may be led astray by the registry, or by what stands before it. */
const TRICKS: Readonly<Record<string, Trick>> = {
  'a redirect of the first request': {
    on: 'anonymous',
    isLate: false,
    play: redirect(307, ({ stranger }) => stranger),
  },
  'a redirect of the first request with credentials': {
    on: 'authorized',
    isLate: false,
    play: redirect(302, ({ stranger }) => stranger),
  },
  'a redirect of a later request': {
    on: 'authorized',
    isLate: true,
    play: redirect(303, ({ stranger }) => stranger),
  },
  'a redirect when a token has expired': {
    on: 'anonymous',
    isLate: true,
    play: redirect(308, ({ stranger }) => stranger),
  },
  'a later challenge that names another token service': {
    on: 'anonymous',
    isLate: true,
    play: challenge(({ stranger }) => `Bearer realm="http://${stranger}/token",service="s"`),
  },
  'another token service beside name and password': {
    on: 'authorized',
    isLate: true,
    play: challenge(({ stranger }) => `Basic realm="x", Bearer realm="http://${stranger}/token",service="s"`),
  },
  'a token service that redirects': {
    on: 'token',
    isLate: false,
    play: redirect(307, ({ stranger }) => stranger),
  },
  'an upload that goes on elsewhere': {
    on: 'authorized',
    isLate: false,
    paths: /\/blobs\/uploads\//,
    play: location(({ stranger }) => `http://alice@${stranger}/upload`),
  },
  'an upload that goes on elsewhere, without a scheme': {
    on: 'authorized',
    isLate: true,
    paths: /\/blobs\/uploads\//,
    play: location(({ stranger }) => `//${stranger}/upload`),
  },
  'a page that is elsewhere': {
    on: 'authorized',
    isLate: false,
    paths: LISTS,
    play: list(({ stranger }) => `http://${stranger}/next`),
  },
  'a page whose path looks like a host': {
    on: 'authorized',
    isLate: false,
    paths: LISTS,
    play: list(({ registry, stranger }) => `http://${registry}//${stranger}/next`),
  },
};

async function drained(list: AsyncIterable<unknown>): Promise<unknown[]> {
  const items: unknown[] = [];
  for await (const item of list) items.push(item);
  return items;
}

const OPERATIONS: Readonly<Record<string, (client: RegistryClient) => Promise<unknown>>> = {
  'resolving a tag': (client) => client.resolve('app', 'v1'),
  'fetching a manifest': (client) => client.fetchManifest('app', digestOf(MANIFEST)),
  'looking for a blob': (client) => client.blobSize('app', digestOf(BLOB)),
  'fetching a blob': async (client) => bytesOf((await client.fetchBlob('app', digestOf(BLOB))).body),
  'fetching a range': async (client) =>
    bytesOf((await client.fetchBlob('app', digestOf(BLOB), { range: { first: 2, last: 5 } })).body),
  'resuming a blob': async (client) => bytesOf((await client.fetchBlob('app', digestOf(LARGE))).body),
  'pushing a blob': (client) => client.pushBlob('app', described(BLOB), () => [BLOB]),
  'pushing a blob in chunks': (client) => client.pushBlob('chunked', described(LARGE), () => [LARGE]),
  'mounting a blob': (client) => client.mountBlob('other', digestOf(BLOB), 'app'),
  'pushing a manifest': (client) =>
    client.pushManifest('app', MediaType.manifest, REFERRER, { tag: 'referrer' }),
  'tagging a manifest': (client) => client.tag('app', digestOf(MANIFEST), 'v2'),
  'deleting a manifest': (client) => client.deleteManifest('app', digestOf(REFERRER)),
  'deleting a blob': (client) => client.deleteBlob('app', digestOf(CONFIG)),
  'listing tags': (client) => drained(client.tags('app')),
  'listing repositories': (client) => drained(client.repositories()),
  'listing referrers': (client) => drained(client.referrers('app', digestOf(MANIFEST))),
};

/** The three servers. What a test changes about them is in `trick`, `lure` and `scheme`. */
class Town {
  scheme: Scheme = 'basic';
  trick: Trick | undefined;
  lure: Answer = (_, response) => response.writeHead(404).end();
  readonly seenByStranger: string[] = [];
  readonly askedForTokens: string[] = [];
  strangerName = 'localhost';
  #registry!: RegistryServer;
  #tokens!: Server;
  #stranger!: Server;
  #issued = new Set<string>();
  #count = 0;
  /** Whether the registry has broken off the large blob, as it does once for each client. */
  #hasBroken = false;

  static async open(): Promise<Town> {
    const town = new Town();
    const memory = new MemoryRegistry();
    for (const bytes of [BLOB, LARGE, CONFIG]) await memory.pushBlob('app', described(bytes), () => [bytes]);
    await memory.pushManifest('app', MediaType.manifest, MANIFEST, { tag: 'v1' });
    await memory.pushManifest('app', MediaType.manifest, REFERRER);
    town.#registry = createRegistryServer(memory, {
      openSpool: memorySpools(),
      wrap: (handler) => (request, response) => {
        town.#guard(request, response, () => {
          handler(request, response);
        });
      },
    });
    await town.#registry.listen({ host: '127.0.0.1', port: 0 });
    town.#tokens = await listening((request, response) => {
      void town.#giveToken(request, response);
    });
    town.#stranger = await listening((request, response) => {
      void town.#note(request, response);
    });
    return town;
  }

  get places(): Places {
    return {
      registry: new URL(this.#registry.url).host,
      tokens: `127.0.0.1:${portOf(this.#tokens)}`,
      stranger: `${this.strangerName}:${portOf(this.#stranger)}`,
    };
  }

  client(): RegistryClient {
    const credentials: Credentials =
      this.scheme === 'identity token'
        ? { kind: 'identity', token: REFRESH_TOKEN }
        : { kind: 'password', username: 'alice', password: PASSWORD };
    this.#hasBroken = false;
    this.seenByStranger.length = 0;
    this.askedForTokens.length = 0;
    return new RegistryClient(this.places.registry, {
      ...impatient,
      retry: { attempts: 2, delay: 1, maxDelay: 2 },
      credentials: { get: () => Promise.resolve(credentials) },
    });
  }

  async close(): Promise<void> {
    for (const server of [this.#tokens, this.#stranger]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
    await this.#registry.close();
  }

  /** Lets pass what has the right credentials. A token is good for one request, so each request needs a new one. */
  #guard(request: IncomingMessage, response: ServerResponse, pass: () => void): void {
    const authorization = request.headers.authorization ?? '';
    const isAuthorized =
      this.scheme === 'basic' ? authorization === BASIC : this.#issued.delete(authorization.slice(7));
    if (this.#plays(isAuthorized ? 'authorized' : 'anonymous', request, response)) return;
    if (!isAuthorized) {
      request.resume();
      const header =
        this.scheme === 'basic'
          ? 'Basic realm="registry"'
          : `Bearer realm="http://${this.places.tokens}/token",service="registry"`;
      response.writeHead(401, { 'www-authenticate': header }).end();
      return;
    }
    if (request.method === 'PUT' && Number(request.headers['content-length']) === LARGE.length) {
      request.resume();
      response.writeHead(413).end();
      return;
    }
    const isLarge = request.method === 'GET' && request.url?.endsWith(digestOf(LARGE)) === true;
    if (isLarge && !this.#hasBroken) {
      this.#hasBroken = true;
      response.writeHead(200, { 'content-length': LARGE.length });
      response.write(LARGE.subarray(0, 1000), () => {
        response.destroy();
      });
      return;
    }
    // A deletion is only tried: every test finds the same registry.
    if (request.method === 'DELETE') {
      request.resume();
      response.writeHead(202).end();
      return;
    }
    pass();
  }

  async #giveToken(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = await textOf(request);
    this.askedForTokens.push(asked);
    if (this.#plays('token', request, response)) return;
    const isKnown = request.headers.authorization === BASIC || asked.includes(REFRESH_TOKEN);
    if (!isKnown) {
      response.writeHead(401).end();
      return;
    }
    const token = `issued-token-${(this.#count += 1)}`;
    this.#issued.add(token);
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token }));
  }

  async #note(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.seenByStranger.push(await textOf(request));
    this.lure(request, response, this.places);
  }

  #plays(on: Trick['on'], request: IncomingMessage, response: ServerResponse): boolean {
    const { trick } = this;
    if (trick?.on !== on || trick.paths?.test(request.url ?? '') === false) return false;
    request.resume();
    trick.play(request, response, this.places);
    return true;
  }
}

async function listening(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** All of a request: address, headers and body. */
async function textOf(request: IncomingMessage): Promise<string> {
  const body = await bytesOf(request);
  return `${request.method} ${request.url} ${JSON.stringify(request.headers)} ${body.toString('latin1')}`;
}

describe('the credentials of a registry', function () {
  this.timeout(60_000);
  let town: Town;
  before(async () => {
    town = await Town.open();
  });
  after(() => town.close());

  for (const [operation, run] of Object.entries(OPERATIONS)) {
    it(`are of use for ${operation}`, async () => {
      town.trick = undefined;
      for (town.scheme of SCHEMES) await run(town.client());
    });

    it(`stay with it and its token service, whoever interferes with ${operation}`, async () => {
      let turn = 0;
      for (const [trickName, trick] of Object.entries(TRICKS)) {
        for (const [lureName, lure] of Object.entries(LURES)) {
          town.scheme = SCHEMES[turn % SCHEMES.length]!;
          town.strangerName = turn % 2 === 0 ? 'localhost' : '127.0.0.1';
          turn += 1;
          town.trick = undefined;
          town.lure = lure;
          const client = town.client();
          if (trick.isLate) await client.blobSize('app', digestOf(BLOB));
          town.trick = trick;
          try {
            await run(client);
          } catch (error) {
            if (!isLayercacheError(error)) throw error;
          }
          const what = `${trickName}; the stranger ${lureName}; ${town.scheme}`;
          for (const secret of SECRETS) {
            expect(town.seenByStranger.join('\n'), what).not.to.include(secret);
          }
          expect(town.askedForTokens.join('\n'), what).not.to.include('stranger');
        }
        // Another pairing of schemes and lures with each trick.
        turn += 1;
      }
    });
  }

  it('would be seen by the stranger if they came', async () => {
    // The stranger is reached, so that the tests above could fail.
    town.scheme = 'basic';
    town.lure = LURES['asks for name and password']!;
    town.trick = TRICKS['a redirect of a later request'];
    const client = town.client();
    try {
      await client.resolve('app', 'v1');
      expect.fail('the stranger’s challenge was met');
    } catch (error) {
      if (!isLayercacheError(error, 'UNAUTHORIZED')) throw error;
      expect(error.message).to.include(town.places.stranger).and.to.include('it gets none');
    }
    expect(town.seenByStranger).to.have.length(1);
  });
});
