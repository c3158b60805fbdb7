// The cache.
export { LayerCache } from './layer-cache.js';
export type {
  BlobOptions,
  ExportOptions,
  FindOptions,
  LayerCacheOptions,
  VerifyCacheOptions,
} from './layer-cache-options.js';

// Images, layers, manifests and blobs.
export type { AddedImage, AddOptions, BlobProgress } from './add-image.js';
export type { NamedImage } from './images/image-names.js';
export type { Layer, ReadLayerOptions, UncompressedOptions } from './layer.js';
export type { BlobCache, GetBlobOptions, PutBlobOptions } from './content/blob-cache.js';
export type { ManifestCache, ManifestValidation, PutManifestOptions } from './content/manifest-cache.js';
export { formatPlatform, hostPlatform, parsePlatform } from './platform.js';
export { decompress } from './decompress.js';
export { writeWholeFile } from './export/whole-file.js';
export type { RegistryFactory } from './sources/open-source.js';

// Sharing.
export {
  CACHE_ARTIFACT_TYPE,
  CACHE_CONFIG_TYPE,
  decodeCacheIndex,
  decodeImageShard,
  decodeShard,
  encodeCacheIndex,
  type CacheDocument,
  type CacheIndex,
  type DecodedCacheIndex,
  type Shard,
} from './share/cache-index.js';
export type { PullOptions, PullResult } from './share/pull.js';
export type { SkippedPart } from './share/skipped-part.js';
export type { DifferentName, NamePolicy, PulledNames } from './share/pulled-names.js';
export type { PushOptions, PushResult } from './share/push.js';
export type { BlobState } from './share/remote-blobs.js';
export type { Removal } from './share/removal.js';
export type { PushProgress } from './share/sender.js';
export { CACHE_TAG } from './entries/names.js';
export { CacheRegistry } from './cache-registry.js';

// Files of an image.
export { diffImages } from './indexes/image-diff.js';
export type { ImageView, ReadFileOptions } from './indexes/image-view.js';
export type { IndexProgress, LayerIndexOptions } from './indexes/layer-indexer.js';
export type { IndexedLayerReport, IndexOptions, IndexReport, ViewOptions } from './indexes/layer-indexes.js';
export type { DescribedLayer, IndexSummary, StoredLayerIndex } from './indexes/stored-index.js';

// What tags mean.
export {
  DEFAULT_TAG_TTL,
  type ResolveTagOptions,
  type ResolvedTag,
  type TagMove,
  type TagResolution,
  type TagResolver,
} from './tags/tag-resolver.js';

// Room: what stays and what goes.
export type { PruneOptions, PruneReason, PruneReport, PrunedItem } from './policy/prune.js';
export type { EvictedItem } from './policy/evictor.js';
export type { Reclaimable, RetentionOptions } from './policy/retention.js';
export { composite, costAware, lru, size, strategies, strategyNamed, ttl } from './policy/strategies.js';
export type { Candidate, CandidateKind, EvictionContext, EvictionStrategy } from './policy/strategy.js';

// Insight: what is in it, what it did, whether it is whole.
export { BLOB_KINDS, type BlobKind } from './insight/blob-kind.js';
export type { DebugReportOptions } from './insight/debug-report.js';
export type { DiskUse } from './insight/folder-size.js';
export type {
  AgeBand,
  BlobStats,
  CacheStats,
  Deduplication,
  ImageStats,
  KindStats,
  PairStats,
  StatsOptions,
} from './insight/stats.js';
export type { CacheReport } from './insight/report.js';
export { ownIdentity, redacted, type Identity } from './insight/redact.js';
export type { Latency } from './metrics/latency-histogram.js';
export type { Metrics, MetricsRecorder } from './metrics/metrics.js';
export {
  COUNTERS,
  OPERATIONS,
  PEAKS,
  type Counter,
  type MetricsSnapshot,
  type Operation,
  type OperationMetrics,
  type Peak,
} from './metrics/tally.js';

// What the calls speak of.
export {
  CacheFullError,
  LayercacheError,
  isLayercacheError,
  type Descriptor,
  type Digest,
  type ErrorCode,
  type LogFields,
  type Logger,
  type Platform,
} from '@layercache/oci';
export type {
  Entry,
  IndexStats,
  Limits,
  VerifyProblem,
  VerifyProblemKind,
  VerifyReport,
  VerifyStep,
} from '@layercache/layout';
