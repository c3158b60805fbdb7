import { CacheFullError, IntegrityError, LayercacheError, digestOf, type ErrorCode } from '@layercache/oci';
import { expect } from 'chai';
import { RegistryError } from '../../src/registry-error.js';
import { errorAnswer } from '../../src/server/error-answer.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { errorCode, serving } from './serving.js';

describe('an error of the registry behind the server', () => {
  const mapped: readonly (readonly [ErrorCode, writing: boolean, status: number, code: string])[] = [
    ['NOT_FOUND', false, 404, 'BLOB_UNKNOWN'],
    ['DIGEST_INVALID', false, 400, 'DIGEST_INVALID'],
    ['DIGEST_MISMATCH', true, 400, 'DIGEST_INVALID'],
    ['DIGEST_MISMATCH', false, 500, 'UNKNOWN'],
    ['DOCUMENT_INVALID', true, 400, 'MANIFEST_INVALID'],
    ['DOCUMENT_INVALID', false, 500, 'UNKNOWN'],
    ['REFERENCE_INVALID', false, 400, 'NAME_INVALID'],
    ['USAGE', false, 400, 'NAME_INVALID'],
    ['UNAUTHORIZED', false, 401, 'UNAUTHORIZED'],
    ['UNSUPPORTED', true, 405, 'UNSUPPORTED'],
    ['REGISTRY', false, 502, 'UNKNOWN'],
    ['NETWORK', false, 502, 'UNKNOWN'],
    ['CACHE_FULL', true, 507, 'DENIED'],
    ['STORAGE', true, 500, 'UNKNOWN'],
    ['LOCK_TIMEOUT', true, 500, 'UNKNOWN'],
    ['ABORTED', false, 503, 'UNKNOWN'],
  ];
  for (const [code, writing, status, reported] of mapped) {
    it(`${code} is ${status} ${reported} to who ${writing ? 'writes' : 'reads'}`, () => {
      const answer = errorAnswer(new LayercacheError(code, 'why'), 'blob', writing);
      expect([answer.status, answer.errors.map((each) => each.code)]).to.deep.equal([status, [reported]]);
      const says = ['CACHE_FULL', 'STORAGE', 'LOCK_TIMEOUT'].includes(code) ? /./ : /^why$/;
      expect(answer.errors[0]?.message).to.match(says);
    });
  }

  it('that something can never fit is 413, and says how much it is', () => {
    const full = new CacheFullError('why', { bytes: 3000, neverFits: true });
    const { status, errors } = errorAnswer(full, 'upload', true);
    expect([status, errors[0]?.code]).to.deep.equal([413, 'SIZE_INVALID']);
    expect(errors[0]?.message).to.include('3000 bytes');
    const busy = new CacheFullError('why', { bytes: 3000, neverFits: false });
    expect(errorAnswer(busy, 'upload', true).status).to.equal(507);
  });

  it('that the disk is full is 507', () => {
    for (const code of ['ENOSPC', 'EDQUOT']) {
      const error = new LayercacheError('STORAGE', 'why', { cause: Object.assign(new Error('x'), { code }) });
      expect(errorAnswer(error, 'upload', true).status).to.equal(507);
    }
  });

  it('names no file of this machine', () => {
    for (const message of [
      'blob x is not in /var/my secret/cache; fetch it first',
      "ENOENT: no such file or directory, open '/home/secret/.docker/config.json'",
      'cannot read "C:\\Users\\secret\\x": denied',
      '/secret',
      'the lock /srv/secret place/lock: held',
      'no room in /srv/secret place (10 bytes at most)',
    ]) {
      for (const code of ['NOT_FOUND', 'STORAGE', 'UNAUTHORIZED', 'DIGEST_MISMATCH', 'NETWORK'] as const) {
        for (const writing of [true, false]) {
          const answer = JSON.stringify(errorAnswer(new LayercacheError(code, message), 'blob', writing));
          expect(answer, message).not.to.match(/secret|place/);
        }
      }
    }
    const kept = new LayercacheError('NETWORK', 'GET https://registry.example/v2/x failed: refused');
    expect(errorAnswer(kept, 'blob', false).errors[0]?.message).to.equal(kept.message);
  });

  it('that another registry reported is cut down to a size that can be sent', () => {
    let deep: unknown = 1;
    for (let depth = 0; depth < 100_000; depth++) deep = [deep];
    const reported = Array.from({ length: 100 }, () => ({
      code: 'X'.repeat(5000),
      message: 'm'.repeat(5000),
      detail: deep,
    }));
    const answer = errorAnswer(
      new RegistryError('REGISTRY', 'why', { status: 400, reported }),
      'blob',
      false,
    );
    expect(JSON.stringify(answer).length).to.be.below(30_000);
  });

  it('that is about the length says so', () => {
    const error = new IntegrityError('DIGEST_MISMATCH', 'why', { expected: 3, found: 4 });
    expect(errorAnswer(error, 'uploads', true).errors[0]?.code).to.equal('SIZE_INVALID');
  });

  it('that another registry reported goes on in that registry’s words', () => {
    const refused = new RegistryError('UNAUTHORIZED', 'why', {
      status: 403,
      reported: [{ code: 'DENIED', detail: 7 }],
    });
    expect(errorAnswer(refused, 'blob', false)).to.deep.equal({
      status: 403,
      errors: [{ code: 'DENIED', detail: 7, message: 'why' }],
    });
    const failed = new RegistryError('REGISTRY', 'why', { status: 500, reported: [{ code: 'UNKNOWN' }] });
    expect(errorAnswer(failed, 'blob', false).status).to.equal(502);
  });

  it('that nobody foresaw tells the log, and not the client, what it was', async () => {
    const logged: unknown[] = [];
    const nothing = (): void => undefined;
    const registry = new MemoryRegistry();
    registry.blobSize = () => Promise.reject(new TypeError('secret'));
    registry.fetchManifest = () => Promise.reject(new TypeError('secret'));
    await serving(
      async (url) => {
        const response = await fetch(`${url}/v2/app/manifests/1`);
        expect(response.status).to.equal(500);
        expect(await response.text()).not.to.include('secret');
        expect((await fetch(`${url}/v2/app/blobs/${digestOf('x')}`, { method: 'HEAD' })).status).to.equal(
          500,
        );
        expect(JSON.stringify(logged)).to.include('a request failed');
        expect(logged).to.have.length(2);
      },
      {
        registry,
        logger: { debug: nothing, info: nothing, warn: nothing, error: (fields) => logged.push(fields) },
      },
    );
  });
});

describe('a request that the specification does not know', () => {
  it('is refused when the name of the repository breaks the grammar', () =>
    serving(async (url) => {
      const names = ['App', 'a//b', '-a', 'a/', 'a%2F..%2Fb', 'a%00b', '%zz', 'a'.repeat(256), '%2e%2e/x'];
      for (const name of names) {
        const response = await fetch(`${url}/v2/${name}/tags/list`);
        expect(response.status, name).to.be.oneOf([400, 404]);
        expect(await errorCode(response), name).to.be.oneOf(['NAME_INVALID', 'NAME_UNKNOWN']);
      }
    }));

  it('is refused when a blob is asked for by what is no digest', () =>
    serving(async (url) => {
      for (const digest of ['sha256:..%2F..%2Fx', 'latest', `sha256:${'A'.repeat(64)}`]) {
        const response = await fetch(`${url}/v2/app/blobs/${digest}`);
        expect(response.status).to.equal(400);
        expect(await errorCode(response)).to.equal('DIGEST_INVALID');
      }
    }));

  it('is refused when the method is another', () =>
    serving(async (url) => {
      const response = await fetch(`${url}/v2/app/blobs/${digestOf('x')}`, { method: 'PUT', body: 'x' });
      expect(response.status).to.equal(405);
      expect(response.headers.get('allow')).to.equal('GET, HEAD, DELETE');
      expect(await errorCode(response)).to.equal('UNSUPPORTED');
    }));
});
