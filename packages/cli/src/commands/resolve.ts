import { layerFacts } from '../layer-facts.js';
import { example, type CommandModule } from './command.js';

export const resolve: CommandModule = {
  register: (program) =>
    program
      .command('resolve')
      .description("print a layer's diffID and the digests of its compressed forms")
      .argument('<key>', 'a digest or a diffID')
      .addHelpText('after', example('layercache resolve sha256:83ee…')),

  async run(session, command) {
    const [key = ''] = command.args;
    await session.withCache(
      (cache) => {
        const facts = layerFacts(cache.layer(key));
        if (session.output.json) {
          session.output.document(facts);
          return Promise.resolve();
        }
        session.output.line(`diffID  ${facts.diffID ?? '(not known)'}${facts.proven ? '' : '  (claimed)'}`);
        for (const digest of facts.digests) session.output.line(`digest  ${digest}`);
        return Promise.resolve();
      },
      { create: false },
    );
  },
};
