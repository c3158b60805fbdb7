import { Console } from 'node:console';
import { Writable } from 'node:stream';
import { expect } from 'chai';
import pino from 'pino';
import winston from 'winston';
import { LayercacheError, errorFields, type LogFields, type Logger } from '@layercache/oci';
import { imageOf, layerOf, pushImage, tarOf } from './image-builder.js';
import { Scratch, memoryRegistry } from './test-cache.js';

/** What was written to a stream, in lines. */
class Lines extends Writable {
  readonly lines: string[] = [];

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.lines.push(...chunk.toString().split('\n').filter(Boolean));
    done();
  }

  get records(): Record<string, unknown>[] {
    return this.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}

describe('the log', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const image = imageOf([layerOf(tarOf({ data: 'one' })), layerOf(tarOf({ data: 'two' }))]);
  const NAME = 'registry.test/app:1';

  async function addWith(logger: Logger | undefined): Promise<number> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => registry, logger });
    return (await cache.add(NAME)).fetched;
  }

  function expected(fetched: number): LogFields[] {
    return [
      { message: 'adding image', source: NAME },
      {
        message: 'image added',
        name: NAME,
        digest: image.descriptor.digest,
        layers: 2,
        fetched,
        reused: 0,
      },
    ];
  }

  it('has two lines an image, of fields, at info', async () => {
    const lines: [string, LogFields][] = [];
    const at =
      (level: string) =>
      (fields: LogFields): void => {
        lines.push([level, fields]);
      };
    const fetched = await addWith({
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
    });
    const told = lines.filter(([level]) => level !== 'debug');
    expect(told).to.deep.equal(expected(fetched).map((fields) => ['info', fields]));
  });

  it('is written by pino', async () => {
    const out = new Lines();
    const fetched = await addWith(pino({ messageKey: 'message', level: 'info' }, out));
    expect(
      out.records.map(({ level: _, time: __, pid: ___, hostname: ____, ...rest }) => rest),
    ).to.deep.equal(expected(fetched));
    expect(out.records.map(({ level }) => level)).to.deep.equal([30, 30]);
  });

  it('is written by winston', async () => {
    const records: unknown[] = [];
    const logger = winston.createLogger({ level: 'info' });
    logger.pipe(
      new Writable({
        objectMode: true,
        write(info: object, _encoding, done): void {
          records.push(info);
          done();
        },
      }),
    );
    const fetched = await addWith(logger);
    const plain: unknown = JSON.parse(JSON.stringify(records));
    expect(plain).to.deep.equal(expected(fetched).map((fields) => ({ level: 'info', ...fields })));
  });

  it('is written by a console', async () => {
    const out = new Lines();
    await addWith(new Console({ stdout: out, stderr: out, inspectOptions: { breakLength: Infinity } }));
    const told = out.lines.join('\n');
    expect(told).to.include(`message: 'adding image', source: '${NAME}'`);
    expect(told).to.include(`digest: '${image.descriptor.digest}'`);
  });

  it('is silent unless a logger is given', async () => {
    const written: unknown[] = [];
    const { log, info, warn, error, debug } = console;
    const note = (...all: unknown[]): void => {
      written.push(all);
    };
    Object.assign(console, { log: note, info: note, warn: note, error: note, debug: note });
    try {
      await addWith(undefined);
    } finally {
      Object.assign(console, { log, info, warn, error, debug });
    }
    expect(written).to.deep.equal([]);
  });

  it('tells errors in fields that any logger can write', () => {
    expect(errorFields(new LayercacheError('NETWORK', 'no route'))).to.deep.equal({
      error: 'no route',
      code: 'NETWORK',
    });
    const { error, stack } = errorFields(new TypeError('a bug'));
    expect(error).to.equal('a bug');
    expect(stack).to.include('logging.test');
    expect(errorFields('thrown')).to.deep.equal({ error: 'thrown' });
  });
});
