import {
  MAX_EXPANSION,
  maxCheckpoints,
  spanStart,
  WINDOW_SIZE,
  type Checkpoint,
} from '../deflate/checkpoint.js';
import { refuseZtoc } from './flatbuffer-reader.js';

/** Number of checkpoints (int32), span size (int64). */
const HEADER_SIZE = 12;
/** `input` and `output` (int64), `bits` (one byte), window. */
const CHECKPOINT_SIZE = 8 + 8 + 1 + WINDOW_SIZE;

export interface Checkpoints {
  /** Bytes of output between checkpoints, at least. */
  readonly spanSize: number;
  readonly checkpoints: readonly Checkpoint[];
}

/** SOCI's "zinfo" of a gzip layer, version 2, all numbers little-endian. */
export function encodeCheckpoints({ spanSize, checkpoints }: Checkpoints): Buffer {
  const blob = Buffer.alloc(HEADER_SIZE + checkpoints.length * CHECKPOINT_SIZE);
  blob.writeInt32LE(checkpoints.length, 0);
  blob.writeBigInt64LE(BigInt(spanSize), 4);
  checkpoints.forEach(({ input, output, bits, window }, index) => {
    const at = HEADER_SIZE + index * CHECKPOINT_SIZE;
    blob.writeBigInt64LE(BigInt(input), at);
    blob.writeBigInt64LE(BigInt(output), at + 8);
    blob.writeUInt8(bits, at + 16);
    blob.set(window, at + 17);
  });
  return blob;
}

/**
 * Windows are views of `blob`, not copies.
 *
 * @throws LayercacheError `DOCUMENT_INVALID` when an offset is out of range or out of order
 */
export function decodeCheckpoints(blob: Uint8Array, compressedSize: number): Checkpoints {
  const bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.byteLength);
  if (bytes.length < HEADER_SIZE) refuseZtoc('its checkpoints are cut off');
  const count = bytes.readInt32LE(0);
  const spanSize = Number(bytes.readBigInt64LE(4));
  // Version 1 leaves out the first checkpoint: it took every gzip header to have 10 bytes.
  const isFirstVersion = HEADER_SIZE + (count - 1) * CHECKPOINT_SIZE === bytes.length;
  if (!isFirstVersion && HEADER_SIZE + count * CHECKPOINT_SIZE !== bytes.length) {
    refuseZtoc('its checkpoints are not as many as it says');
  }
  if (count < 1) refuseZtoc('it has no checkpoint');
  if (count > maxCheckpoints(compressedSize))
    refuseZtoc('it has too many checkpoints for the size of its layer');
  if (spanSize < 0 || !Number.isSafeInteger(spanSize)) refuseZtoc('its span size is out of range');
  const checkpoints: Checkpoint[] = [];
  if (isFirstVersion)
    checkpoints.push({ input: 10, bits: 0, output: 0, window: new Uint8Array(WINDOW_SIZE) });
  for (let at = HEADER_SIZE; at < bytes.length; at += CHECKPOINT_SIZE) {
    checkpoints.push({
      input: Number(bytes.readBigInt64LE(at)),
      output: Number(bytes.readBigInt64LE(at + 8)),
      bits: bytes.readUInt8(at + 16),
      window: bytes.subarray(at + 17, at + CHECKPOINT_SIZE),
    });
  }
  let before: Checkpoint | undefined;
  for (const checkpoint of checkpoints) {
    if (!isPossible(checkpoint, before, compressedSize))
      refuseZtoc('a checkpoint is out of order or out of range');
    before = checkpoint;
  }
  return { spanSize, checkpoints };
}

/** Whether a checkpoint can stand behind another one: no two stand in one place, of the gzip or of the tar. */
function isPossible(
  { input, output, bits }: Checkpoint,
  before: Checkpoint | undefined,
  compressedSize: number,
): boolean {
  // A gzip header has at least 10 bytes.
  if (!Number.isSafeInteger(input) || input < 10 || input > compressedSize || bits > 7) return false;
  if (before === undefined) return output === 0;
  return (
    input > before.input &&
    Number.isSafeInteger(output) &&
    output > before.output &&
    output - before.output <= MAX_EXPANSION * (input - spanStart(before))
  );
}
