export {
  dockerCredentials,
  noCredentials,
  type Credentials,
  type CredentialStore,
  type DockerCredentialsOptions,
} from './client/credentials.js';
export { RegistryClient, type RegistryClientOptions } from './client/registry-client.js';
export type { RateLimit } from './client/rate-limit.js';
export type { RetryOptions } from './client/retry.js';
export { isLoopback } from './client/addresses.js';
export type { Traffic } from './client/transport.js';
export { copy, type CopyEnd, type CopyEvent, type CopyOptions } from './copy.js';
export { forward } from './forward.js';
export { MemoryRegistry } from './memory-registry.js';
export { checkHost, hostName, type HostNames } from './server/host-check.js';
export { isLoopbackAddress } from './server/loopback-address.js';
export { isReadOnly, readOnly } from './read-only.js';
export {
  apiHost,
  formatReference,
  isRegistryHost,
  isRepositoryName,
  isTag,
  parseReference,
  type Reference,
} from './reference.js';
export { RegistryError, type ReportedError } from './registry-error.js';
export type * from './registry.js';
export { referrerOf, subjectSchema } from './subject.js';
export type { RequestHandler } from './server/registry-handler.js';
export {
  createRegistryServer,
  type RegistryServer,
  type RegistryServerOptions,
} from './server/registry-server.js';
export {
  fileSpools,
  memorySpools,
  type AppendOptions,
  type OpenSpool,
  type UploadSpool,
} from './server/upload-spool.js';
