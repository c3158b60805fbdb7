import { add } from './add.js';
import { cat } from './cat.js';
import type { CommandModule } from './command.js';
import { debug } from './debug.js';
import { demo } from './demo.js';
import { diff } from './diff.js';
import { exportImage } from './export.js';
import { extract } from './extract.js';
import { files } from './files.js';
import { get } from './get.js';
import { has } from './has.js';
import { index } from './index-layers.js';
import { inspect } from './inspect.js';
import { ls } from './ls.js';
import { pin, unpin } from './pin.js';
import { prune } from './prune.js';
import { pull } from './pull.js';
import { push } from './push.js';
import { resolve } from './resolve.js';
import { rm } from './rm.js';
import { serve } from './serve.js';
import { stats } from './stats.js';
import { tag } from './tag.js';
import { verify } from './verify.js';

/** In the order in which the help lists them. */
export const commands: readonly CommandModule[] = [
  add,
  get,
  resolve,
  has,
  ls,
  inspect,
  push,
  pull,
  exportImage,
  index,
  files,
  cat,
  extract,
  diff,
  tag,
  verify,
  prune,
  rm,
  pin,
  unpin,
  stats,
  debug,
  serve,
  demo,
];
