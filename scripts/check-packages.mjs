// Packs every package, installs the tarballs in an empty folder as a stranger would, and uses what they export.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'layercache-pack-'));
const run = (command, args, cwd = dir) =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** pnpm gives each package what it declares and nothing else, so that an undeclared import fails. */
function runIsolated(tarballs, version) {
  const isolated = join(dir, 'isolated');
  mkdirSync(isolated);
  const places = tarballs.map((name) => {
    const { name: packageName } = JSON.parse(run('tar', ['xzOf', name, 'package/package.json']));
    return [packageName, `file:${join(dir, name)}`];
  });
  const all = Object.fromEntries(places);
  writeFileSync(
    join(isolated, 'package.json'),
    JSON.stringify({ private: true, dependencies: { layercache: all.layercache }, pnpm: { overrides: all } }),
  );
  const pnpm = (...args) => run('npx', ['--yes', 'pnpm@10', ...args], isolated);
  pnpm('install', '--config.node-linker=isolated', '--config.hoist=false', '--silent', '--ignore-scripts');
  const program = join(isolated, 'node_modules/.bin/layercache');
  const said = run(program, ['--version'], isolated).trim();
  if (said !== version)
    throw new Error(`installed by pnpm, layercache --version says ${said}, not ${version}`);
  run(program, ['--cache', 'demo-cache/first', 'demo'], isolated);
}

try {
  run('npm', ['pack', '--workspaces', '--pack-destination', dir, '--loglevel=error'], root);
  const tarballs = readdirSync(dir).filter((name) => name.endsWith('.tgz'));
  for (const tarball of tarballs) {
    const files = run('tar', ['tzf', tarball]).trim().split('\n');
    const stray = files.filter((file) => /\/test\/(?!conformance|images)|\.tsbuildinfo$/.test(file));
    if (stray.length > 0) throw new Error(`${tarball} carries ${stray[0]}`);
    const program = tarball.startsWith('layercache-0') ? ['dist/bundle/layercache.js'] : [];
    for (const wanted of ['README.md', 'LICENSE', 'dist/src/index.d.ts', ...program]) {
      if (!files.includes(`package/${wanted}`)) throw new Error(`${tarball} lacks ${wanted}`);
    }
  }
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  run('npm', [
    'install',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    ...tarballs.map((name) => `./${name}`),
  ]);
  writeFileSync(
    join(dir, 'use.mjs'),
    `import { LayerCache } from '@layercache/cache';
     const cache = await LayerCache.open('./cache');
     console.log(cache.has('sha256:' + '0'.repeat(64)));
     console.log((await cache.report()).html.includes('<script type="module">'));
     await cache.close();`,
  );
  if (run(process.execPath, ['use.mjs']) !== 'false\ntrue\n')
    throw new Error('the installed library answers wrongly');
  const layercache = (...args) => run('npx', ['layercache', '--cache', 'demo-cache/first', ...args]).trim();
  const version = layercache('--version');
  layercache('demo');
  const [{ name }] = JSON.parse(layercache('--json', 'ls', '--images')).images;
  // What looks for files of its own: the scanner's thread, the page of the report.
  if (JSON.parse(layercache('--json', 'index', name)).hits !== 0) throw new Error('nothing was indexed');
  layercache('stats', '--html', 'report.html');
  runIsolated(tarballs, version);
  console.log(`${tarballs.length} packages installed and used; layercache --version says ${version}`);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
