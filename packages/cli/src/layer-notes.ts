import { escapeControls, type MergedView } from '@layercache/layer';
import { plural } from './output.js';
import type { Session } from './session.js';

/** Says how often the layers of a view left something to interpretation; the log says what. */
export function remarkNotes({ notes, omittedNotes }: MergedView, { logger, output }: Session): void {
  if (notes.length === 0) return;
  for (const { kind, layer, name } of notes)
    logger.info({ message: kind, layer, name: escapeControls(name) });
  const listed = omittedNotes === 0 ? 'them' : `the first ${notes.length}`;
  output.note(
    `${plural(notes.length + omittedNotes, 'note')} on what the layers leave to interpretation: --log-level info lists ${listed}`,
  );
}
