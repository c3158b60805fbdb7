export type * from './registry.js';
