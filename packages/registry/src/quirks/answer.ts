import type { ServerResponse } from 'node:http';

/**
 * Changes an answer at the last moment before its head is sent: headers through the response, the status by what
 * `change` returns.
 */
export function beforeHead(response: ServerResponse, change: (status: number) => number): void {
  const writeHead = response.writeHead.bind(response);
  response.writeHead = (status: number) => writeHead(change(status));
}

/** An error as registries report it (distribution specification, "Error Codes"). */
export function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  const body = Buffer.from(JSON.stringify({ errors: [{ code, message }] }));
  response.setHeader('Content-Type', 'application/json');
  response.setHeader('Content-Length', body.length);
  response.writeHead(status);
  response.end(body);
}

export function pathOf(url: string | undefined): string {
  return new URL(url ?? '/', 'http://registry').pathname;
}
