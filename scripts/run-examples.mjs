// Runs every example as a reader would. Each says what it does and asserts it, so that one that fails, fails here.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

const programs = readdirSync('examples', { withFileTypes: true })
  .map((entry) => (entry.isDirectory() ? `examples/${entry.name}/run-locally.mjs` : `examples/${entry.name}`))
  .filter((path) => path.endsWith('.mjs') && !path.endsWith('/embedded-registry.mjs') && existsSync(path));

for (const program of programs) {
  console.log(`\n$ node ${program}`);
  const { status, signal } = spawnSync(process.execPath, [program], { stdio: 'inherit', timeout: 120_000 });
  if (status !== 0) {
    console.error(`${program} failed: ${signal ?? `exit code ${status}`}`);
    process.exit(1);
  }
}
console.log(`\n${programs.length} examples ran`);
