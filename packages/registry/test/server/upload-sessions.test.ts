import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { UploadSessions } from '../../src/server/upload-sessions.js';
import type { UploadSession } from '../../src/server/upload-session.js';
import { memorySpools } from '../../src/server/upload-spool.js';

function sessions(limit: number, limitPerClient: number, idle = 60_000): UploadSessions {
  return new UploadSessions({ openSpool: memorySpools(), idle, limit, limitPerClient });
}

function isOpen(uploads: UploadSessions, { repository, id }: UploadSession): boolean {
  try {
    return uploads.find(repository, id).id === id;
  } catch {
    return false;
  }
}

async function withByte(uploads: UploadSessions, client: string): Promise<UploadSession> {
  const session = uploads.start('app', client);
  await session.append(ReadableStream.from([Buffer.from('x')]), {});
  return session;
}

describe('the uploads of several clients', () => {
  it('are not given up for a client that begins many', async () => {
    const uploads = sessions(10, 4);
    const other = await withByte(uploads, 'other');
    const empty = uploads.start('app', 'other');
    const own: UploadSession[] = [];
    for (let count = 0; count < 600; count++) own.push(uploads.start('app', 'greedy'));
    expect([isOpen(uploads, other), isOpen(uploads, empty)]).to.deep.equal([true, true]);
    expect(own.filter((each) => isOpen(uploads, each))).to.deep.equal(own.slice(-4));
    await uploads.endAll();
  });

  it('are given up from the client that has most, when there are too many of all', async () => {
    const uploads = sessions(6, 4);
    const modest = await withByte(uploads, 'modest');
    const greedy: UploadSession[] = [];
    for (let count = 0; count < 4; count++) greedy.push(await withByte(uploads, 'greedy'));
    await withByte(uploads, 'third');
    const fourth = await withByte(uploads, 'fourth');
    expect([isOpen(uploads, modest), isOpen(uploads, fourth)]).to.deep.equal([true, true]);
    expect(greedy.map((each) => isOpen(uploads, each))).to.deep.equal([false, true, true, true]);
    await uploads.endAll();
  });

  it('are not given up while a request is at work on them, however long', async () => {
    const uploads = sessions(2, 2, 10);
    const busy = uploads.start('app', 'a');
    let finish = (): void => undefined;
    const work = busy.inTurn(() => new Promise<void>((resolve) => (finish = resolve)));
    uploads.start('app', 'a');
    uploads.start('app', 'a');
    await delay(40);
    expect(isOpen(uploads, busy)).to.equal(true);
    finish();
    await work;
    // Looking is a use of it, so it is looked for seldom.
    do await delay(50);
    while (isOpen(uploads, busy));
  });
});
