export * from './deflate/checkpoint.js';
export * from './deflate/gzip-scanner.js';
export * from './deflate/restart.js';
