import { warnOfClaimedName } from '../trust-notes.js';
import { example, type CommandModule } from './command.js';

interface Options {
  readonly to: string;
  readonly soci?: boolean;
}

export const exportImage: CommandModule = {
  register: (program) =>
    program
      .command('export')
      .description('hand an image to other tools')
      .argument('<image>', 'the name of an image, or the digest of its manifest')
      .requiredOption('--to <place>', 'oci:DIR[:name], oci-archive:FILE[:name] or docker-archive:FILE[:name]')
      .option('--soci', 'with a SOCI index beside the image, for tools that read layers lazily')
      .addHelpText(
        'after',
        example('layercache export alpine:3.20 --to docker-archive:alpine.tar', 'docker load -i alpine.tar'),
      ),

  async run(session, command) {
    const [image = ''] = command.args;
    const { to, soci = false } = command.opts<Options>();
    await session.withCache(
      async (cache) => {
        warnOfClaimedName(cache, image, session.output);
        const { digest } = await cache.export(image, to, { soci, signal: session.signal });
        if (session.output.json) {
          session.output.document({ image, to, digest });
          return;
        }
        session.output.line(`${to}  ${digest}`);
      },
      { create: false },
    );
  },
};
