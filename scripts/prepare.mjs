// What `npm test`, `npm run demo` and `npm run lint` need before they can start, on a fresh clone with only
// Node and npm: the installed packages and the compiled sources. Does only what is not done yet, and says so.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

/** The lock file as it was when the packages were installed. */
const INSTALLED = 'node_modules/.installed-package-lock.json';

function run(what, command, args) {
  console.error(`[prepare] ${what}: ${command} ${args.join(' ')}`);
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2] });
  if (status !== 0) {
    console.error(`[prepare] ${what} failed${error ? `: ${error.message}` : ` with exit code ${status}`}`);
    process.exit(1);
  }
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`[prepare] Node ${process.versions.node} is too old: layercache needs 20.19 or newer`);
  process.exit(1);
}

const installed =
  existsSync(INSTALLED) && readFileSync(INSTALLED, 'utf8') === readFileSync('package-lock.json', 'utf8');
if (!installed) {
  run('installing the packages of package-lock.json', 'npm', [
    'ci',
    '--no-fund',
    '--no-audit',
    '--loglevel=error',
  ]);
  copyFileSync('package-lock.json', INSTALLED);
}
// Incremental: a second or so when nothing changed.
run('compiling', process.execPath, ['node_modules/typescript/bin/tsc', '--build']);
