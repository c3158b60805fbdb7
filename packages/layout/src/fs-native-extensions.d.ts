/** The part of the package that is used here; it brings no types of its own. */
declare module 'fs-native-extensions' {
  export function tryLock(fd: number, offset: number, length: number, options: { shared: boolean }): boolean;
  export function unlock(fd: number, offset?: number, length?: number): void;
}
