import { once } from 'node:events';
import { LayercacheError } from '@layercache/oci';
import { createRegistryServer } from '@layercache/registry';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly listen: string;
}

export const serve: CommandModule = {
  register: (program) =>
    program
      .command('serve')
      .description('be a registry, to read and to write, until Ctrl-C')
      .option('--listen <host:port>', 'where to listen; port 0 takes a free one', '127.0.0.1:5000')
      .addHelpText(
        'after',
        example(
          'layercache serve --listen 127.0.0.1:5000',
          'docker pull 127.0.0.1:5000/docker.io/library/alpine:3.20',
        ),
      ),

  async run(session, command) {
    const { host, port } = parseListen(command.opts<Options>().listen);
    await session.withCache(async (cache) => {
      const server = createRegistryServer(cache.registry(), { logger: session.logger });
      await server.listen({ host, port });
      try {
        if (session.output.json) session.output.document({ url: server.url });
        else session.output.line(server.url);
        session.output.note(`serving ${cache.dir}; Ctrl-C ends it`);
        if (!session.signal.aborted) await once(session.signal, 'abort');
      } finally {
        await server.close();
      }
    });
  },
};

function parseListen(text: string): { host: string; port: number } {
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === '' || port > 65535) {
    throw new LayercacheError(
      'USAGE',
      `"${text}" is not where one can listen: expected HOST:PORT, as in 127.0.0.1:5000`,
    );
  }
  return { host: bracketed ?? (plain === '' || plain === undefined ? '127.0.0.1' : plain), port };
}
