import { LayercacheError, type ErrorCode, type ErrorOptions } from '@layercache/oci';

/** One error as registries report it (distribution specification, "Error codes"). */
export interface ReportedError {
  readonly code: string;
  readonly message?: string | undefined;
  readonly detail?: unknown;
}

/** A registry answered with an error, or with something that is not an answer. */
export class RegistryError extends LayercacheError {
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined;
  /** What the registry said of it, in its own words. */
  readonly reported: readonly ReportedError[];
  /** Milliseconds after which it may be asked again, where it said so. */
  readonly retryAfter: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    detail: {
      readonly status?: number;
      readonly reported?: readonly ReportedError[];
      readonly retryAfter?: number | undefined;
    } & ErrorOptions = {},
  ) {
    super(code, message, detail);
    this.status = detail.status;
    this.reported = detail.reported ?? [];
    this.retryAfter = detail.retryAfter;
  }
}
