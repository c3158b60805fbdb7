export * from './annotations.js';
export * from './descriptor.js';
export * from './digest.js';
export * from './document.js';
export * from './errors.js';
export * from './logger.js';
export * from './manifest.js';
export * from './media-types.js';
