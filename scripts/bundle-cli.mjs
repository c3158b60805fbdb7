// Makes one file of the command line and what it imports, for `npm pack`: a program of some 500 modules takes twice
// as long to start as one. In a checkout there is none, so that what runs is always what was compiled last.
//   node scripts/bundle-cli.mjs [--remove]
import { readFile, rm } from 'node:fs/promises';
import { relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = `${root}packages/cli/dist/bundle`;

async function bundle() {
  const { build } = await import('esbuild');
  await build({
    entryPoints: [`${root}packages/cli/dist/src/main.js`],
    outfile: `${folder}/layercache.js`,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    // They find their prebuilt binaries by their own places.
    external: ['fs-native-extensions', 'koffi'],
    // For the packages that are still CommonJS.
    banner: {
      js: `import { createRequire as requireFrom } from 'node:module';\nconst require = requireFrom(import.meta.url);`,
    },
    legalComments: 'external',
    logLevel: 'warning',
    plugins: [ownPlaces],
  });
}

/** Modules that look for files beside them find those of their own package, which is installed with the bundle. */
const ownPlaces = {
  name: 'own-places',
  setup({ onLoad }) {
    onLoad(
      { filter: /\/packages\/(cache|layer|layout|oci|registry)\/dist\/src\/.*\.js$/ },
      async ({ path }) => {
        const text = await readFile(path, 'utf8');
        if (!text.includes('import.meta.url')) return undefined;
        const [, name] = /\/packages\/(\w+)\/dist\/src\//.exec(path) ?? [];
        const place = relative(`${root}packages/${name}/dist/src`, path).split(sep).join('/');
        const url = `new URL('./${place}', import.meta.resolve('@layercache/${name}')).href`;
        return { contents: text.replaceAll('import.meta.url', url) };
      },
    );
  },
};

await rm(folder, { recursive: true, force: true });
if (!process.argv.includes('--remove')) await bundle();
