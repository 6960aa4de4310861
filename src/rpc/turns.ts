/** Runs `work` soon, in its source's turn. */
export type Turns = (source: object | string, work: () => void) => void;

/**
 * Takes pieces of work in turns, one of each source: a connection with a thousand calls at once waits for itself, and
 * nobody else waits for it. A piece is never run in the turn it came in. Between `atOnce` of them the event loop looks
 * after everything else.
 */
export function takingTurns(atOnce: number): Turns {
  const waiting = new Map<object | string, (() => void)[]>();
  let due = false;
  const schedule = () => {
    if (!due) setImmediate(turn);
    due = true;
  };
  const turn = () => {
    due = false;
    let left = atOnce;
    // Who has more goes to the end of the map, and its turn comes again after all others'.
    for (const [source, queue] of waiting) {
      if (left-- === 0) break;
      waiting.delete(source);
      const work = queue.shift();
      if (queue.length > 0) waiting.set(source, queue);
      work?.();
    }
    if (waiting.size > 0) schedule();
  };
  return (source, work) => {
    const queue = waiting.get(source);
    if (queue === undefined) waiting.set(source, [work]);
    else queue.push(work);
    schedule();
  };
}
