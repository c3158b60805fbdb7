/** What the HTML report is made of: embedded in the page as JSON, read by the code beside this file. Sizes in bytes. */
export interface ReportData {
  readonly version: 1;
  /** When the cache was looked at, as in JSON. */
  readonly at: string;
  readonly totals: ReportTotals;
  readonly kinds: readonly ReportKind[];
  readonly ages: readonly ReportAge[];
  readonly layers: readonly ReportLayer[];
  /** The largest first. */
  readonly images: readonly ReportImage[];
  /** Images too small and too many to be listed. */
  readonly more: { readonly images: number; readonly unique: number };
  /** What several images share beside layers. */
  readonly sharedOther: number;
  /** What no image needs, by kind. */
  readonly rest: readonly { readonly kind: string; readonly size: number }[];
  readonly activity: ReportActivity;
}

export interface ReportTotals {
  readonly disk: number;
  readonly blobs: number;
  readonly blobSize: number;
  readonly entries: number;
  readonly images: number;
  readonly logical: number;
  readonly unique: number;
  readonly ratio: number;
  readonly proven: number;
  readonly claimed: number;
  readonly unpaired: number;
  readonly reclaimable: number;
}

export interface ReportKind {
  readonly kind: string;
  readonly blobs: number;
  readonly size: number;
  readonly reclaimable: number;
}

export interface ReportAge {
  /** The longest time since the last use, in ms; null: any. */
  readonly until: number | null;
  readonly blobs: number;
  readonly size: number;
}

export interface ReportForm {
  readonly digest: string;
  readonly kind: string;
  readonly size: number;
  /** How many images need it. */
  readonly images: number;
}

export interface ReportLayer {
  readonly digest: string;
  readonly diffID: string | null;
  readonly forms: readonly ReportForm[];
}

export interface ReportImage {
  readonly digest: string;
  /** Hostile: anybody may have chosen them. */
  readonly names: readonly string[];
  readonly pinned: boolean;
  readonly size: number;
  readonly shared: number;
  readonly unique: number;
  /** Of `unique`: what is no layer. */
  readonly documents: number;
  readonly usedAt: string | null;
  /** Positions in {@link ReportData.layers}. */
  readonly layers: readonly number[];
}

/** What was done with the cache, in all runs of all programs. */
export interface ReportActivity {
  readonly since: string;
  readonly hits: number;
  readonly misses: number;
  readonly bytesServed: number;
  readonly bytesDownloaded: number;
  readonly bytesSaved: number;
  readonly evictions: number;
  readonly operations: readonly {
    readonly name: string;
    readonly count: number;
    readonly errors: number;
    /** Milliseconds. */
    readonly p50: number;
    readonly p95: number;
    readonly p99: number;
  }[];
}
