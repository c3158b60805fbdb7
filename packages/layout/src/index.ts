export type {
  Bytes,
  HashedBlob,
  ReadDocumentOptions,
  ReadOptions,
  WriteOptions,
  WrittenBlob,
} from './blobs.js';
export type { Entry } from './entry.js';
export type { AdoptContext, DeriveContext, Derived, LayoutExtension } from './extension.js';
export { cannotStore, nodeFileSystem, type FileFacts, type FileSystem } from './file-system.js';
export { indexStats, type IndexStats } from './index-stats.js';
export type { IngestOptions, Ingested, OpenSource, Wanted } from './ingest.js';
export type { EvictedBlob } from './layout-state.js';
export { OciLayout, type OpenOptions } from './oci-layout.js';
export { SideFolder, type SideFolderOptions, type WithRoom } from './side-folder.js';
export type { LimitOptions, Limits, RoomMade, Shortage } from './space/limits.js';
export type { StageOptions, StagedBlob } from './staged-blob.js';
export type { StoredBlob } from './stored-blobs.js';
export type { PartialFile } from './temp-files.js';
export type {
  VerifyOptions,
  VerifyProblem,
  VerifyProblemKind,
  VerifyReport,
  VerifyStep,
  VerifyStepName,
} from './verify-report.js';
export { verify } from './verify.js';
