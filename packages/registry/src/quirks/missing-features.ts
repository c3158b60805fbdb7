import type { RequestHandler } from '../server/registry-handler.js';
import { beforeHead, pathOf, refuse } from './answer.js';

/** No referrers API, as in distribution 2.8: 404, and no word of a subject. */
export function withoutReferrers(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    if (/^\/v2\/.+\/referrers\/[^/]+$/.test(pathOf(request.url))) {
      request.resume();
      refuse(response, 404, 'UNSUPPORTED', 'there is no such endpoint here');
    } else withoutSubjectHeader(handler)(request, response);
  };
}

/** Referrers are listed, but a push with a subject is not answered with `OCI-Subject`. */
export function withoutSubjectHeader(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    beforeHead(response, (status) => {
      response.removeHeader('OCI-Subject');
      return status;
    });
    handler(request, response);
  };
}

/** A chunk is answered with 201, where the specification has 202. */
export function createdForChunks(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    if (request.method === 'PATCH') beforeHead(response, (status) => (status === 202 ? 201 : status));
    handler(request, response);
  };
}

/** A GET with `Range` is answered with 200 and the whole blob. */
export function withoutRanges(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    delete request.headers.range;
    beforeHead(response, (status) => {
      response.removeHeader('Accept-Ranges');
      return status;
    });
    handler(request, response);
  };
}

/** A mount is answered with an upload. */
export function withoutMounts(handler: RequestHandler): RequestHandler {
  return (request, response) => {
    const url = new URL(request.url ?? '/', 'http://registry');
    url.searchParams.delete('mount');
    url.searchParams.delete('from');
    request.url = url.pathname + url.search;
    handler(request, response);
  };
}
