import { expect } from 'chai';
import fc from 'fast-check';
import { Readable } from 'node:stream';
import { isLayercacheError } from '@layercache/oci';
import { decompressZstd } from '../../src/zstd/decompress-zstd.js';
import { MAX_ZSTD_WINDOW } from '../../src/zstd/zstd-frames.js';

const MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const SKIPPABLE = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5]);

const rawBlock = (bytes: Buffer, isLast: boolean): Buffer => {
  const header = Buffer.alloc(3);
  header.writeUIntLE((isLast ? 1 : 0) | (bytes.length << 3), 0, 3);
  return Buffer.concat([header, bytes]);
};

/** A block that stands for one byte many times. */
const repeated = (byte: number, size: number, isLast: boolean): Buffer => {
  const header = Buffer.alloc(4, byte);
  header.writeUIntLE((isLast ? 1 : 0) | 2 | (size << 3), 0, 3);
  return header;
};

/** A frame with a window of 2 ** `exponent` bytes and more, in eighths. */
const windowed = (exponent: number, eighths: number, ...blocks: readonly Buffer[]): Buffer =>
  Buffer.concat([MAGIC, Buffer.from([0, ((exponent - 10) << 3) | eighths]), ...blocks]);

const single = (size: bigint, ...blocks: readonly Buffer[]): Buffer => {
  const header = Buffer.alloc(9, 0xe0);
  header.writeBigUInt64LE(size, 1);
  return Buffer.concat([MAGIC, header, ...blocks]);
};

async function decompressed(stream: Buffer, step: number): Promise<Buffer> {
  const portions = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < stream.length; at += step)
      yield await Promise.resolve(stream.subarray(at, at + step));
  };
  const pieces: Uint8Array[] = [];
  for await (const piece of decompressZstd(portions())) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

describe('a zstd stream', () => {
  const hello = Buffer.from('hello');
  const good = Buffer.concat([
    windowed(17, 0, rawBlock(hello, false), repeated(0x61, 3, true)),
    SKIPPABLE,
    single(5n, rawBlock(hello, true)),
    windowed(10, 3, rawBlock(Buffer.alloc(0), true)),
    windowed(27, 0, rawBlock(hello, true)),
  ]);

  it('is decompressed frame by frame, in whatever portions it comes', async () => {
    for (const step of [1, 2, 3, 7, 1000])
      expect((await decompressed(good, step)).toString()).to.equal('helloaaahellohello');
  });

  it('whose frames want a window that is too large is refused, whichever frame it is', async () => {
    const hostile = [
      windowed(27, 1, rawBlock(hello, true)),
      windowed(41, 7, rawBlock(hello, true)),
      windowed(31, 0, rawBlock(hello, true)),
      single(BigInt(MAX_ZSTD_WINDOW) + 1n, rawBlock(hello, true)),
      single(2n ** 64n - 1n, rawBlock(hello, true)),
    ];
    for (const frame of hostile) {
      for (const stream of [frame, Buffer.concat([good, frame]), Buffer.concat([SKIPPABLE, frame])]) {
        for (const step of [1, 5, 1000]) {
          try {
            await decompressed(stream, step);
            expect.fail('it was decompressed');
          } catch (error) {
            expect(isLayercacheError(error, 'COMPRESSION_INVALID'), String(error)).to.equal(true);
            expect(String(error)).to.contain('window');
          }
        }
      }
    }
  });

  /** What the program zstd 1.5 makes of 14,537 bytes of numbers, with a checksum. */
  const SAMPLE = Buffer.from(
    'KLUv/QRoHZwA2qrSSQmweaQ0trMcnAugBKYEmwSzgnSzwsmvUKus4IVX4BwrbNIVuHMFb7ZCjaoIZ1ERpKMiPDhFKPdF8EOKQLKLsD2KwE6LYBOLUK8V4bUVQdoiwiWICEUeIrg/EfgRImxlItAzEUwMIlSjRPiYRJB+RPhMDaFaNATTaAh0ZwibPwReZAjueAhFFEO4LIYgbYfwCg6hLhuCPXUCW3TCRjqB1DnB908oX054kE+QziecjRNq7gneeQJHO2HbTuBaQvBMQqh9hHDShSDdhfCoCKFsC8F/CIFEFcLGCoENCsGWCaE+ZcKryARpyYSLx4Si3wS3xASeYsJmm0A/TDBRTaiyJnyCJkg/Ez5UQaiygmAKCgL9CcJWDwLPB8G1BKHoDsKlIgjSRhBebhDqwyDYYxDYWBC2VwkkohJ8UgllTwmPeQnSvYQzpITaXYJXUQLXKGGTlsARS/DIEmpeCecUCdIVCY8gEsofEvw6CaSehO1CAlsmwa5JqEuQ8KKSIG1JuAhJKKKR4HYk8FIjbEUj0KURTDIjVOsjfPoRpJcRPuURquERTI8R6MUImzsCPxzBJUco8ka4UBVIWwUvoYJ6TYEdU8DOCza+gGQp8MkF5brg8SiQLgpOt6BGLPDKAu4r2LYCzkXgERHUSgTnh0C6IXj4BGUSAr9CQLoJNpqAlSCwqwT1KMFrSCAtCS4fQdFG4EoN8EUDm2mAphkwdQaq84EPPyC9DHwmA1XxgKligHYMbNUBPjrgEgeKyoHLbEDaDbxehzrrYJ8OLOmwfQ6kzcGXH8r74SFykE4Op/hQmw+exIFbHDbpgVsPnvBQGw+n7CDdDg8pgfJKwBcSII0Eto8AyxGwf4E6L/C6CEgrApexQFEt4FII8BECW1WAdgVMRYGqUOAzCkg/gQ8nUJ0ymFoGmsiwmQx8jcGVMRRtDJffIO0NrxFDPcRglw2s2LDRBtLD4DcMZarh4Rqkq+E8DbXS4NEMnGfYNgP3CvBaATWigNMUIB0FPD4B5U6ATw8g+QEbH8COBNghAfVywEscIK0DLhQBRY4AlxHATwM2N4BeA0xnQDUY8KkFSL+ATxdQrSqYpAp0q7AVFXihglsqFNEULjIFaafwohfq8oLdF9iSwnYpkCoFv1wo34VHuCCdC+dEoeYoeIwCRy1s0gLXFrxioXYWzmBBOhYes0LZK/hcgURF2F4ENopgrwj1IcLLRJCWCJcaQtGH4HoIPIew1Qn0TzDFCVWe8CEhSC+ETwihSiGYyAT6Jmw2gacJbgWh6EG4OAjSBuFVJdSnBFtKYKOEjSWQiAT/JJRNwqMkSEfCSSPUPoLnEbiOsG0Ejgq8F9RccLZAuoIHEZRP4JuAVIKNBGwN2DNQl4FXDEg7cNlAER3cOfBy2HygezDtUC2BzwhIL/CxQDUETBSgJ7CVgR+De0ORDZcwSGt4zVCvAJsC2AnYHkBygB8B5QY8GCBdwFmFGhW8KXAvbFLgXPCiUGvhZEG6wqMIZSL4QyCdsJ3ACsE2oR6EVwnSEi4kFI3gjsAXbAU0gWmgOvA5SA8fgaqAyUAbNgMf4AYUFS4FaeFFqBNsAkvYCCTwoQwPkMIJBQbCAhzhgHTmwCPKgfLHAb9oA6TOBrbLBtiKDdjtBuqyDbyI6iDt1OEiUociijq4bR14WR22IjrQHTqYROhQraDDp6WD9KPDp2gO1Zg5mC5zoOc5bO4c+NkcXNYPRZ4fLiQ/SOsfXtIf6rUf7Cg5sDNy2Hg5kGw5+FQ5lEs5PF4+SEc+nL4PNbIPXsMH7vRh23zgTHHw6HGoVeJwPuIgXePw8OJQJurB7/RAuvSw0T2w0h7sWg/1KB5eMzxIex4uNw9FCx5cIQ981Q6baQeavoOpskN1YocPu4P02+GzKoGqTAmYSkqAtktgq5YAHywBl4oEikokcJmTgLRCAq8HCdRZErA/EmBZI7B9RoC0j4AvHoHyYgQewhGQbiNwCl2gtrmAJ3IBbr7AJr0AN17AkxKB2kgETrkISCci8JAQgfIqAr5MBEgrC2wfC7C8BezbAnWGBV6nBaSdBS5DIVDUCQGXJAT4cAhs1RCgzRAwVVWgKlSBz6YC0ksFPnQFqtMKmMoK0FQU2EwU4OsUcEUoUDRT4PJSQFpS4DU1gXrQBOz6BFiRCWz0BEjvBPxyAmWqMjxMZZBuynBeylCry+BRy8CZZdi2MnAnMngdMtRIyHDaZJAuyPA4yVDuyOATjYHkGcPGj4Edj8GOGEO9OIaXbAzS1g0XmhuK/Btcyg38xA2bewM93mB6iaEaJIZPXQzSixg+tRiqVTGYhGKgOzFsRTbwMja4vQ1FZBsuEjZIWxteNBvqUmGwS2Fg62HYLmEg1WHwq2Eon2F4xMIgXdVwztRQ82vwKDVwFDVs0hq4sgaviobaiYYzhgbpTsNjTEPZQYPP0kCi0bC9ZmCDZrA3M9RHZnjZM0gbM1yKMxR9M7iuCuBJFbDVK4C+VIApXAFVRgV8iBUg/SrgE0UBVRIFmOgUQF8oYLMpgGdQgFukgKKPAi6uCZCWJuBVn4D6yATY4glgIyZgYyeARJsA//WAsukBj84DpPsDTvIDao8HeO4DuPIB2/YAjkgCvI8E1HwJOCsSIJ0l4EGVgPIpAb4nAaSWAzaSA9i6A+wRB9TFDnhFOEDaOuAyOqCIKgLcoQjgZSJg8yOArkSAaY6AajUCPsMIkH4R8HE1oBrUABOnAfTegK3cAH6iAe7bgCKzAZdYA6QtBrxGDKjXGWCTMIAdM2B7MIDkMsAPMqDcMeDBWoB0tICzvoAayQK88QK4xwI26QI4cwFebAG1VhVOUhWkmyo8SqpQJlfBn6gC6a3CdlaBlVXBdlGhHkSFV4cK0p4KFwoVimYquAsq8EUqbDUq0FRTMA1NoTozhc8/BellCh/xFKoSUzC5U6DNKWzeFPioF9ygF4o6L1z6F6SVF170C3XGCzb7Aku+sHEvkFZS8EdSKG+k8NilIJ1I4ZylUFtIwVulwI1S2DYpcCsXvJELtY0L5+6CdOLCY3ahvHDBX10gjS5snAssKwo2KQp1ThRefBSklShc6igUNaLgRqPAB6OweVGgXS2YTC1UZVr4yFuQXlr43C1UJ1owTVugiS1stRb4KhbcFQtFIxYuHBakPQuvCgv1MAu2gwVWysJ2skD6WPCnVigTrfColqKXbhXP2Wz6XBFMRFX+EyH96kNTpZiiRL+2Ok+75hSdLiXSxst7fcaesFHZXiS6T5dNP4ak+xlR+8Kr4SqbtByVx6nZ55DS1SNefvi1EYFU2i5s1e6qLvMiS1u6SBXR3ZoXzlZE9yaJau2fkvTyqVZjYvrQk801P+VyiuwLMaStl7xeYQfLDm08yeHTWC49LtLF6W0INRqvwr3bVpzHI9daOl/SzcMuE8dvkf6NZoW3i+rx14S0lMupaHcl+Jo3E01ialRn8SFJL59FVVZTDW3ZqnyMLk1R5TKVdjvh9alT7JflavuQJr60vNFDRjo5pbVtPBluskm57Z5MbXJKpZs8ZMoTX0ravH1Yiv3WuXh9pJXLtKirS8OHbFXao6mmKvJZSL8J4UOqjpgaNK02E1/iShSNdDlJ+9dEPTh2ESvfaNJ5v1WmP2zpKuer1vHInLtt5j5epUY9vZCOHpdyw6eVZNp4dsIOsl70kkvrC3EmFLlcDj/eXHor06ca8qlKP/qUqiUmCbqcrYiXu3UR8RcpaedFrkvtTtia7UJq+DWXT4+4dD6HUXN5HI68SbmuXk3tckZIRz6Gyr5Pk4gLwvZiY+xJffrySlq6lBQ9XJN41lanb1O0ys2HRnr5RFTJm4jof7N5Vtyqos/FIm28aq4P2XI2vLFBovI/ZcujIR17EtV+z+babSNH411qjrNcCdLVg16+fZfU1UZiS+yJupBeUdLOZVJEdWfDC20+XZvWV6s+M9LLx1ENiolFb7YyP3U/F5kucWn9WqNeZdOwI9uDZNaPKnceFOnirLFG5M25e5Ny3kjwgmr9SUvXelSVafwR0mM7iZWyPfWQV0NazoVVtHEnfHWrnSYyzavjzyv95CNUlZts2t0880FuvKi+tNIuXqQ6b9Msu3Eljfy9PD9W6cZzVNu9mVs3wkbgRlXg7VVQm6vgXKtAulXBY0QF5Z0K/JkKSCsVbBwVsKQpsPkpqNNT8GKnQNpNwaX0gqL+BW74BXz0BZv3AtokBSZfCqpiKfhIpUD6ScHn5ILq3AWmsQtoqgu2mgv4oihwN1FQNImCCyMKpGUUvFotqMe0wLa0gJVowXa2gPRigT/DgjIJCx4VLJCuLDg5FtRKK/DiK+DsFWzSFXDfCryhIqjRi+AsF4F0UQQPsgjKLSLwY4iAZCGC7UEE7JAIbKohqNcMwWsfAmk9BJfoEBR5Q+CeTsDPT7CVT0AvTmAiT1CNEoKPRwikFyH4TAhBtSgEpk0I6JIJNt8EvNgE7tQERTQTXFZBIO0EwSskCOoSQWAPg4CtKsFGKgGpL4Fvl6D8luBBK4F0RYKzQ4KahQTegwQckQTbRgKuNALPH0HtHsFJHYF0HMGjVQNlTw34lxogUdTAxtYAG6sBW4gG6nMaeJVpQNqggYtJA0WvGXBrZoDnZ2CzZ4B+Z8BEm4Eq6wOfmA9ILx/4UHygyn7AFPsAfZKBrS4DPEUGXIcMFJ0ycKnygLTkgZfvgfrYA/bCA2zQA9srBkg0MeDzMVC2Y+AxjQHpGANnVAdqnw54JR3g6g5s0g5wtA54LA7UPBx4wO3eWrXROUs3euzldfwRad64s7zNSp30oqWdL31RG24QH9680r7JZVXoI5Z+q4DPX52WaYgmbzXi6+5iilYXirT8q1OPENvFimynSR9/IspUjxLp2pNUq70YOX+TjgK4kzeu0eqsSxf0YJUrfnBInu1xdsomqRflNZLWl5iLfPcNfmgr02NNnGoEPy7p5TPcBFRrTDPd1ebzUnKHisiXcaSdV8TrUvYIW5SNRKp9z+X/QQ3p6qzUzHofjmLbyPWeuwfUTidZOtajU3aQ/yKRbOywQba4PvurLm3IxVV0cYvmSZtNf2GiVxn9REkvHyKrJFOY/iYBW51nlOsqulyKJC297Pps7A0b8e1FIvFZKZseY+noM6b2CK+K6zdpOSKPUjN5zkjnR2wOKP9+tUit7cIWyS7VxS/aSDsXiRdRuT0vla2IrpiErtZ8aukXn3o1oqYXvW8u+SGXUmQuAi400volq3rdjiB2auNJ7vhE5crjvHR02jWaeB3usW3mfI8atdZ5ka59mMpkvyTps9GsbA2w6/WIek1J+8tLRStXhC/OZqLJpvLVmQ8t/eSzqUrYVEX7WzX4KJekqO1lSFp5nayT7Jslx4CNNPuyKm8eEtKNTnltMZ4Ut2/ScytPpLbKKSSdPIQuj3wxaYztw9L21zrn9ZB2vMyLGluAS8XHt2rRLlNJVUqflfTyYac6ZKrQxG8mvuwKpWh0uaWlXzP1sF0LVmajSV/9Tpni4VG6OR+1blXw6Jxj24r7vQbVqE5fupjHq9z71JNcG89OxY6ql7yklrYuJEVuuCx+ZHNLr0yXapSfIunl044K1SKTCN3WVsSLuC0VEV1EpO28iOoidnu2aLuQWvGLypdH1NLVOVJzw2NxJJu0XMsrqb08o6T7Y7oplF0+T6LW9mLj9oLqUy9f2phLVdHvOnjuW51+mGJS5XwopJ8/MVXaRAv6s9k8Wbem6L6YlJZe5fpwL9hCbMjGFonIv5RderSk+0md2svzuca2naN7j5onZ0c6P2guf3ybVMZGYsv2sHWhV4i05WVVROJOJwVeavPphmmrav0zIf3o46mGTeTQo63MD++eiiyXqEhbr71etU3FzrcHyQs/plw/yEpHZ7lGpDfEXTbpXOBcXrzWOLmSbh4VZRr5M6R7O4cVsi316F8taX9hFG3ibviKrWaaxjSuDuNzkl4+0lalTD7t2DzyMW64qFwULiVp5cVWnWXzLGPjiLTx5/I4j5F0cq6vrbydW2ybcBtvro0+R9LJY43yyt9Ji40ry7HpOskXSVq5tGuhqOXG+YjNK9pjsqtC+ghJL593qlOmOU2x1c7XuJOiVS4saf9q1GO2Pax4O4N08kfK1D6qpJuTrpX0gjjLJh0L3Mub1yjOWklHD0q5JT+K5G8PdjY2Tb38Wi9tXeJFDvcTfmYr06tNrGr845B+8Zmplk1r6dbm8xLujEU0l4m03QqvqLrcnmBrtZFIFd+l8utBl85nOTWTd+Go23au49m1U04i6f5olD37HxJ5Y4ONsuX1iVet0tIlg8qoEpgrHqXg/nfyZ38DQvLHpxHFMuK2Cl340pYUSxR6ZDxgeyeZDehVqDVRlMD5bxPIT2Sijl17M+E2sZeK5YFlt2Z2PjN5hgt6wswhLePlCW3Zt52w/+dp/s7SSt61boL5SP4zmePdDGMQ5CYRmfNuvvAbZlEEf3NW9SQ2jJ9peAC+zJGIJzpDY/UYKczK+ZBMqjXp+bR6iGuenq64HSfY7zoywgTkcXIeyZtvOBp4YVzXETsOXR7jD4PizogMOAgESFYzvfCJMQcQZWNPzY4iL0oCSj4mDsnSmp8tCdjIZO5CsiInj0wz85gRGpiVyJZyT8+pF9crnUAO+6ZG3lJEgEG47RYz420FvE+j7A==',
    'base64',
  );
  const sample = Buffer.from(Array.from({ length: 2000 }, (_, index) => `${index * index} `).join(''));

  it('with a checksum is decompressed, in whatever portions it comes', async () => {
    for (const step of [1, 17, 100_000]) {
      const output = await decompressed(Buffer.concat([SAMPLE, SKIPPABLE, SAMPLE]), step);
      expect(output.equals(Buffer.concat([sample, sample]))).to.equal(true);
    }
  });

  async function refusal(stream: Buffer, step = 1000): Promise<string> {
    try {
      await decompressed(stream, step);
    } catch (error) {
      if (isLayercacheError(error, 'COMPRESSION_INVALID')) return error.message;
      throw error;
    }
    return 'nothing';
  }

  it('with a wrong checksum is refused, whichever frame it is', async () => {
    for (let at = 1; at <= 4; at++) {
      const damaged = Buffer.from(SAMPLE);
      damaged[damaged.length - at]! ^= 1;
      for (const stream of [damaged, Buffer.concat([SAMPLE, damaged, SAMPLE])]) {
        for (const step of [1, 3, 100_000])
          expect(await refusal(stream, step)).to.match(/the checksum of a frame is wrong/);
      }
    }
  });

  it('that ends inside a frame is refused, wherever it ends', async () => {
    for (
      let length = 1;
      length < SAMPLE.length;
      length += length < 20 || length > SAMPLE.length - 20 ? 1 : 97
    )
      expect(await refusal(SAMPLE.subarray(0, length)), String(length)).to.match(/corrupt/);
  });

  it('is followed across blocks and checksums to the next frame', async () => {
    const checked = Buffer.concat([
      MAGIC,
      Buffer.from([1, 0, 99]),
      repeated(7, 1000, false),
      rawBlock(hello, true),
    ]);
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 4 }),
        async (step, frames) => {
          const good = [...Array.from({ length: frames }, () => [checked, SAMPLE]).flat()];
          const stream = Buffer.concat([...good, windowed(30, 0, rawBlock(hello, true))]);
          expect(await refusal(stream, step)).to.contain('window');
        },
      ),
      { numRuns: 10 },
    );
  });

  it('that is none, or has another thing behind it, is refused', async () => {
    expect(await refusal(Buffer.from('a tar, perhaps'))).to.match(/there is no zstd frame/);
    expect(await refusal(Buffer.concat([good, Buffer.from('rest')]))).to.match(/there is no zstd frame/);
    expect(await refusal(Buffer.concat([good, Buffer.from('r')]))).to.match(/ends inside a frame/);
  });

  it('has no block that is larger than any', async () => {
    expect(await refusal(windowed(27, 0, repeated(0, (128 << 10) + 1, true)))).to.match(/larger than 131072/);
    expect(await refusal(windowed(27, 0, Buffer.from([7, 0, 0])))).to.match(/reserved type 3/);
  });

  it('hands over its output block by block, however much a few bytes stand for', async () => {
    // 64 KiB that stand for 2 GiB: all of it at once would be too much.
    const blocks = Buffer.alloc(64 << 10, repeated(0, 128 << 10, false));
    let pieces = 0;
    for await (const piece of decompressZstd(Readable.from([windowed(17, 0, blocks)]))) {
      expect(piece.length).to.be.at.most(128 << 10);
      pieces++;
      if (pieces === 100) break;
    }
    expect(process.memoryUsage().arrayBuffers).to.be.lessThan(500 << 20);
  });

  it('of millions of tiny frames is not too deep', async () => {
    const tiny = windowed(10, 0, rawBlock(Buffer.from('x'), true));
    const output = await decompressed(Buffer.alloc(20_000 * tiny.length, tiny), 1 << 20);
    expect(output.toString()).to.equal('x'.repeat(20_000));
  });
});
