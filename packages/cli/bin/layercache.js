#!/usr/bin/env node
import { existsSync } from 'node:fs';

// What npm packs is one file; what a checkout compiles is many.
const bundle = new URL('../dist/bundle/layercache.js', import.meta.url);
const { main } = await import(existsSync(bundle) ? bundle.href : '../dist/src/main.js');

process.exitCode = await main(process.argv.slice(2));
