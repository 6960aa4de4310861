/** How much work gives way to what is urgent, and to the little that other tenants have. */
export type GiveWay = {
  /** Something urgent has come: what is neither urgent nor high gives way, its own tenant's too. */
  urgent(): void;
  /** A little of a tenant's has come: much of others' gives way. */
  little(tenantId: string): void;
  /**
   * Waits until another piece of a tenant's much may begin, or until `hurry` aborts; call what that gives when the piece is
   * done.
   */
  turn(tenantId: string, options?: { isHigh?: boolean; hurry?: AbortSignal }): Promise<() => void>;
};

/** For so long after the last one more of it is expected. */
const EXPECTED_MS = 500;

/** A piece that takes so long waits for something, a lock or a server, more than it works. */
const LONG_MS = 1000;

export type GiveWayOptions = {
  /** How many go at a time while others are expected. */
  pieces: number;
  /** After each, for so many times as long as it took, what comes finds processors idle; for 50 ms at most. */
  rest: number;
};

const MOST_REST_MS = 50;

/** So many of high ones in a row, while others wait. */
const HIGH_IN_A_ROW = 3;

type Piece = { tenantId: string; isHigh: boolean; begin(): void };

/**
 * While something urgent or other tenants' little comes, much goes `pieces` at a time, all tenants and lanes together:
 * what is high first, three to one of what is not, else in the order of asking. Slots of its own are not enough for what is
 * urgent or little: it also shares processors, disk and database connections with whatever has begun, and waits for them at
 * each of its ten steps. For others' little there is also a rest after each piece. Much never stops, whatever
 * comes: for a piece that takes long the next does not wait, and nothing that need not wait itself goes before one that
 * does.
 *
 * What is high gives way to others' little, but not to what is urgent: it is urgent itself.
 */
export function giveWay({ pieces, rest }: GiveWayOptions): GiveWay {
  const waiting: Piece[] = [];
  let going = 0;
  let highInARow = 0;
  let restedAt = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;

  let urgentUntil = Number.NEGATIVE_INFINITY;
  // The last two tenants, because nobody gives way to its own: one of them is another.
  let latest = { tenantId: "", until: Number.NEGATIVE_INFINITY };
  let before = latest;

  /** If nothing comes or ends until then. */
  function beginsAt({ tenantId, isHigh }: Piece): number {
    const littleUntil = (latest.tenantId === tenantId ? before : latest).until;
    if (going < pieces) return Math.min(littleUntil, restedAt);
    return isHigh ? littleUntil : Math.max(littleUntil, urgentUntil);
  }

  function begun(): () => void {
    going++;
    const beganAt = performance.now();
    let counts = true;
    const leave = () => {
      clearTimeout(long);
      if (!counts) return;
      counts = false;
      going--;
      const now = performance.now();
      restedAt = Math.max(restedAt, now + Math.min(MOST_REST_MS, rest * (now - beganAt)));
      handOn();
    };
    const long = setTimeout(leave, LONG_MS).unref();
    return leave;
  }

  function first(): Piece | undefined {
    const other = highInARow < HIGH_IN_A_ROW ? undefined : waiting.find(({ isHigh }) => !isHigh);
    return other ?? waiting[0];
  }

  function handOn(): void {
    clearTimeout(timer);
    for (let piece = first(); piece !== undefined; piece = first()) {
      const leftMs = beginsAt(piece) - performance.now();
      if (leftMs > 0) {
        timer = setTimeout(handOn, Math.max(1, leftMs));
        return;
      }
      waiting.splice(waiting.indexOf(piece), 1);
      highInARow = piece.isHigh && waiting.some(({ isHigh }) => !isHigh) ? highInARow + 1 : 0;
      piece.begin();
    }
  }

  return {
    urgent() {
      urgentUntil = performance.now() + EXPECTED_MS;
    },
    little(tenantId) {
      if (latest.tenantId !== tenantId) before = latest;
      latest = { tenantId, until: performance.now() + EXPECTED_MS };
    },
    turn: (tenantId, { isHigh = false, hurry } = {}) =>
      new Promise((resolve) => {
        if (hurry?.aborted) return resolve(begun());
        const piece = { tenantId, isHigh, begin };
        function begin(): void {
          hurry?.removeEventListener("abort", hurried);
          resolve(begun());
        }
        function hurried(): void {
          waiting.splice(waiting.indexOf(piece), 1);
          begin();
        }
        hurry?.addEventListener("abort", hurried);
        const behind = isHigh ? waiting.findIndex((other) => !other.isHigh) : -1;
        waiting.splice(behind === -1 ? waiting.length : behind, 0, piece);
        handOn();
      }),
  };
}
