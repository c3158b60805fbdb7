import { parentPort, workerData } from 'node:worker_threads';
import { CheckpointScan, scanFailure, type ScanReply, type ScanRequest } from './scanning.js';

/** The thread of a `ThreadScanning`. Portions go back as they came: transferred, not copied. */
const { spanSize } = workerData as { readonly spanSize: number };
const scan = new CheckpointScan(spanSize);

function reply(request: ScanRequest): ScanReply {
  try {
    return scan.step(request);
  } catch (error) {
    return scanFailure(error);
  }
}

parentPort?.on('message', (request: ScanRequest) => {
  parentPort?.postMessage(reply(request), [request.bytes.buffer]);
});
