import { expect } from 'chai';
import { SingleFlight, isLayercacheError } from '../src/index.js';

function deferred(): { promise: Promise<string>; resolve: (value: string) => void } {
  let resolve: (value: string) => void = () => undefined;
  const promise = new Promise<string>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

const codeOf = (error: unknown): unknown => (isLayercacheError(error) ? error.code : error);

describe('SingleFlight', () => {
  it('starts the work once for callers who come while it runs, and again for those who come later', async () => {
    const flights = new SingleFlight<string>();
    const work = deferred();
    let started = 0;
    const start = (): Promise<string> => {
      started += 1;
      return work.promise;
    };
    const both = Promise.all([flights.run('a', undefined, start), flights.run('a', undefined, start)]);
    work.resolve('done');
    expect(await both).to.deep.equal(['done', 'done']);
    expect(started).to.equal(1);
    await flights.run('a', undefined, start);
    expect(started).to.equal(2);
  });

  it('goes on when one of two callers gives up, and aborts the work when both have', async () => {
    const flights = new SingleFlight<string>();
    const work = deferred();
    let signal: AbortSignal | undefined;
    const start = (given: AbortSignal): Promise<string> => {
      signal = given;
      return work.promise;
    };
    const [first, second] = [new AbortController(), new AbortController()];
    const one = flights.run('a', first.signal, start).catch(codeOf);
    const two = flights.run('a', second.signal, start).catch(codeOf);
    first.abort();
    expect(await one).to.equal('ABORTED');
    expect(signal?.aborted).to.equal(false);
    second.abort();
    expect(await two).to.equal('ABORTED');
    expect(signal?.aborted).to.equal(true);
  });

  it('starts nothing for a caller whose signal has fired', async () => {
    const flights = new SingleFlight<string>();
    const outcome = await flights
      .run('a', AbortSignal.abort(), () => Promise.reject(new Error('started')))
      .catch(codeOf);
    expect(outcome).to.equal('ABORTED');
  });

  it('gives every caller the error of the work', async () => {
    const flights = new SingleFlight<string>();
    const start = (): Promise<string> => Promise.reject(new Error('broken'));
    const outcomes = await Promise.allSettled([
      flights.run('a', undefined, start),
      flights.run('a', undefined, start),
    ]);
    expect(outcomes.map((each) => each.status)).to.deep.equal(['rejected', 'rejected']);
  });
});
