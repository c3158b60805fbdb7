// Preloaded into a process that is measured: says at its end how much memory it had resident at most.
import { writeSync } from 'node:fs';

process.on('exit', () => {
  // Kibibytes, as getrusage(2) counts on Linux.
  writeSync(2, `peak-rss-kib ${process.resourceUsage().maxRSS}\n`);
});
