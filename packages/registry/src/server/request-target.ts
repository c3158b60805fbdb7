import { invalid } from './route.js';

/** The target of a request (RFC 9112, section 3.2), in its parts. */
export interface RequestTarget {
  readonly path: string;
  readonly query: URLSearchParams;
  /** Host and port of a target in absolute form, which then counts instead of the `Host` header. */
  readonly authority: string | undefined;
}

/** @throws RegistryError with status 400 when it is malformed */
export function parseRequestTarget(target: string): RequestTarget {
  // A target that starts with two slashes has no host: it is a path all the same.
  const isPath = target.startsWith('/');
  const absolute = /^https?:\/\/([^/?#]*)/i.exec(target);
  if (isPath || absolute !== null) {
    try {
      const { pathname, searchParams } = new URL(isPath ? `http://registry${target}` : target);
      return { path: pathname, query: searchParams, authority: absolute?.[1] };
    } catch {
      // It is refused below.
    }
  }
  throw invalid('UNSUPPORTED', `${JSON.stringify(target.slice(0, 300))} is not the target of a request`);
}
