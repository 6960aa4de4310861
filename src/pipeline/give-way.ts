/** How other work gives way to what is urgent. */
export type GiveWay = {
  /** Something urgent has come. */
  urgent(): void;
  /** Waits until another piece of it may begin; call what that gives when the piece is done. */
  turn(): Promise<() => void>;
};

/** For so long after the last that was urgent more of it is expected. */
const EXPECTED_MS = 500;

/** A piece that takes so long waits for something, a lock or a server, more than it works. */
const LONG_MS = 1000;

/**
 * While urgent work comes, other work goes one piece at a time, in the order of asking over all lanes that give way.
 * Slots of its own are not enough for what is urgent: it also shares processors, disk and database connections with
 * whatever has begun. Other work never stops, whatever comes: for a piece that takes long the next does not wait.
 */
export function giveWay(): GiveWay {
  const waiting: (() => void)[] = [];
  let going = 0;
  let until = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;

  const isExpected = () => performance.now() < until;

  function begin(): () => void {
    going++;
    let counts = true;
    const leave = () => {
      clearTimeout(long);
      if (!counts) return;
      counts = false;
      going--;
      handOn();
    };
    const long = setTimeout(leave, LONG_MS).unref();
    return leave;
  }

  function handOn(): void {
    while (waiting.length > 0 && (going === 0 || !isExpected())) waiting.shift()?.();
    if (waiting.length === 0 || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      handOn();
    }, until - performance.now());
  }

  return {
    urgent() {
      until = performance.now() + EXPECTED_MS;
    },
    turn: () =>
      new Promise((resolve) => {
        waiting.push(() => resolve(begin()));
        handOn();
      }),
  };
}
