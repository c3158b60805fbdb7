import { connect } from 'node:net';

export interface RawAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** Sends bytes as they are, and reads until the server hangs up. */
export async function sendRaw(url: string, bytes: string | Uint8Array): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) });
  // A server that refuses bytes may hang up before it has read all of them.
  socket.on('error', () => undefined);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.end(bytes);
  await closed;
  return Buffer.concat(chunks).toString('latin1');
}

/** One request, by its lines, and the answer. */
export async function ask(url: string, ...lines: readonly string[]): Promise<RawAnswer> {
  return parseAnswer(await sendRaw(url, [...lines, 'Connection: close', '', ''].join('\r\n')));
}

export function parseAnswer(text: string): RawAnswer {
  const [head = '', ...rest] = text.split('\r\n\r\n');
  return { status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]), head, body: rest.join('\r\n\r\n') };
}

/** The code of the first error in a body. Throws when the body has another form. */
export function codeOf({ body }: RawAnswer): string {
  const { errors } = JSON.parse(body) as { errors: { code: string; message: string }[] };
  if (typeof errors[0]?.message !== 'string') throw new Error(`${body} says nothing`);
  return errors[0].code;
}
