import { IntegrityError, LayercacheError, digestOf, type ErrorCode } from '@layercache/oci';
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
    ['STORAGE', true, 500, 'UNKNOWN'],
    ['ABORTED', false, 503, 'UNKNOWN'],
  ];
  for (const [code, writing, status, reported] of mapped) {
    it(`${code} is ${status} ${reported} to who ${writing ? 'writes' : 'reads'}`, () => {
      const answer = errorAnswer(new LayercacheError(code, 'why'), 'blob', writing);
      expect(answer).to.deep.equal({ status, errors: [{ code: reported, message: 'why' }] });
    });
  }

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
