/** What a layout may take. Nothing costs anything where nothing is limited. */
export interface Limits {
  /**
   * Bytes of all files below the folder: blobs, temporary and partial files, `index.json` and the side state. What
   * they hold is counted, not the blocks they take.
   */
  readonly maxSize?: number | undefined;
  /** Entries of `index.json`. */
  readonly maxEntries?: number | undefined;
  /** Bytes that stay free on the disk, as `df` tells them to one who is not root. */
  readonly minFree?: number | undefined;
}

/** What does not fit. */
export interface Shortage {
  /** Bytes that have to go. */
  readonly bytes: number;
  /** Entries that have to go. */
  readonly entries: number;
  /** What wants the room can be made again from what is here: only what can be, too, should go for it. */
  readonly derived: boolean;
}

/** `freed`: something went. `busy`: nothing can go now. */
export type RoomMade = 'freed' | 'busy';

export interface LimitOptions extends Limits {
  /** Makes room by taking something out. Called by one at a time, without the lock of the layout. */
  readonly makeRoom?: ((shortage: Shortage) => Promise<RoomMade>) | undefined;
}
