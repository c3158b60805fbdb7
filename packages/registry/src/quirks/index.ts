/** Registries as they are, to test against: each wraps the server's handler or a registry, and they compose. */
export { basicAuth, tokenAuth, type Account, type TokenAuth } from './authentication.js';
export { droppingConnections, slow, type Drops } from './bad-connections.js';
export { chunkMinimum, rateLimited, requestLimit, type RateLimit } from './limits.js';
export {
  createdForChunks,
  withoutMounts,
  withoutRanges,
  withoutReferrers,
  withoutSubjectHeader,
} from './missing-features.js';
export { strictIndexes } from './strict-indexes.js';
