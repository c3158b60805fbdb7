import { SideFolder } from '../src/index.js';

/** Adds one to the number in the file `count`, as often as its second argument says. */
const [dir = '', times = '0'] = process.argv.slice(2);
const folder = new SideFolder(dir, 'counts');
for (let done = 0; done < Number(times); done++) {
  await folder.update('count', (before) => Buffer.from(String(Number(Buffer.from(before ?? '0')) + 1)));
}
folder.close();
