/** Where a command's words go: data to stdout, everything about it to stderr. */
export interface Output {
  /** Whether the data is wanted as JSON. */
  readonly json: boolean;
  /** One line of data. */
  readonly line: (text: string) => void;
  /** The data as one JSON document; what a command prints in its place for people goes through `line`. */
  readonly document: (value: unknown) => void;
  /** A remark about the work, for people: not with `--quiet` or `--json`. */
  readonly note: (text: string) => void;
}

export function createOutput(options: { readonly json: boolean; readonly quiet: boolean }): Output {
  return {
    json: options.json,
    line: (text) => process.stdout.write(`${text}\n`),
    document: (value) => process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`),
    note: (text) => {
      if (!options.quiet && !options.json) process.stderr.write(`${text}\n`);
    },
  };
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** Bytes in decimal units, as registries and disks count them: `28.6 MB`. */
export function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return '?';
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit] ?? ''}`;
}

export function formatDuration(milliseconds: number): string {
  if (milliseconds < 10) return `${milliseconds.toFixed(2)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function plural(count: number, noun: string, many = `${noun}s`): string {
  return `${count.toLocaleString('en-US')} ${count === 1 ? noun : many}`;
}

/** Columns as wide as their widest cell; the last is not padded. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) =>
    all.reduce((widest, row) => Math.max(widest, (row[column] ?? '').length), 0),
  );
  return all
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
