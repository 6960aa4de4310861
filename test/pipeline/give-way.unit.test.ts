import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type GiveWay, giveWay } from "#src/pipeline/give-way.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const ONE = { pieces: 1, rest: 1 };
const FLOOD = "flood";
const OTHER = "other";

type Piece = { name: string; end: (() => void) | undefined };

/** Asks for a turn; the piece has an end from when it has begun. */
function ask(way: GiveWay, name: string, { tenant = FLOOD, isHigh = false, order = [] as string[] } = {}): Piece {
  const piece: Piece = { name, end: undefined };
  void way.turn(tenant, { isHigh }).then((end) => {
    order.push(name);
    piece.end = end;
  });
  return piece;
}
const begun = async (pieces: readonly Piece[]) => {
  await vi.advanceTimersByTimeAsync(0);
  return pieces.filter(({ end }) => end !== undefined).map(({ name }) => name);
};

test("while nothing is urgent and nobody has a little everything begins at once", async () => {
  const way = giveWay(ONE);
  expect(await begun(["a", "b", "c"].map((name) => ask(way, name)))).toEqual(["a", "b", "c"]);
});

test("while urgent work comes one piece goes at a time, in the order of asking, also after those that had begun", async () => {
  const way = giveWay(ONE);
  const order: string[] = [];
  const before = ["a", "b"].map((name) => ask(way, name, { order }));
  expect(await begun(before)).toEqual(["a", "b"]);
  way.urgent();
  const after = ["c", "d", "e"].map((name) => ask(way, name, { order }));
  expect(await begun(after)).toEqual([]);
  before[0]?.end?.();
  expect(await begun(after)).toEqual([]);
  before[1]?.end?.();
  expect(await begun(after)).toEqual(["c"]);
  after[0]?.end?.();
  expect(await begun(after)).toEqual(["c", "d"]);
  after[1]?.end?.();
  expect(await begun(after)).toEqual(["c", "d", "e"]);
  expect(order).toEqual(["a", "b", "c", "d", "e"]);
});

test.each(["urgent", "little"] as const)(
  "half a second after the last that was %s all who wait begin",
  async (what) => {
    const way = giveWay(ONE);
    const comes = () => (what === "urgent" ? way.urgent() : way.little(OTHER));
    comes();
    const pieces = ["a", "b", "c"].map((name) => ask(way, name));
    expect(await begun(pieces)).toEqual(["a"]);
    await vi.advanceTimersByTimeAsync(400);
    comes();
    await vi.advanceTimersByTimeAsync(499);
    expect(await begun(pieces)).toEqual(["a"]);
    await vi.advanceTimersByTimeAsync(2);
    expect(await begun(pieces)).toEqual(["a", "b", "c"]);
    for (const { end } of pieces) end?.();
    expect(vi.getTimerCount()).toBe(0);
  },
);

test("who begins late is counted like the others", async () => {
  const way = giveWay(ONE);
  way.urgent();
  const early = ["a", "b"].map((name) => ask(way, name));
  await vi.advanceTimersByTimeAsync(501);
  expect(await begun(early)).toEqual(["a", "b"]);
  way.urgent();
  const late = ask(way, "c");
  early[0]?.end?.();
  expect(await begun([late])).toEqual([]);
  early[1]?.end?.();
  expect(await begun([late])).toEqual(["c"]);
});

test("a piece that takes a second or more keeps the others no longer, and does not count twice when it ends", async () => {
  const way = giveWay(ONE);
  const urgent = setInterval(() => way.urgent(), 100);
  way.urgent();
  const pieces = ["hangs", "b", "c"].map((name) => ask(way, name));
  await vi.advanceTimersByTimeAsync(900);
  expect(await begun(pieces)).toEqual(["hangs"]);
  await vi.advanceTimersByTimeAsync(100);
  expect(await begun(pieces)).toEqual(["hangs", "b"]);
  pieces[0]?.end?.();
  expect(await begun(pieces)).toEqual(["hangs", "b"]);
  pieces[1]?.end?.();
  expect(await begun(pieces)).toEqual(["hangs", "b", "c"]);
  clearInterval(urgent);
});

test("beside another tenant's little one piece goes at a time, and after each is a rest as long as it took", async () => {
  const way = giveWay(ONE);
  way.little(OTHER);
  const pieces = ["a", "b"].map((name) => ask(way, name));
  await vi.advanceTimersByTimeAsync(30);
  expect(await begun(pieces)).toEqual(["a"]);
  pieces[0]?.end?.();
  await vi.advanceTimersByTimeAsync(29);
  expect(await begun(pieces)).toEqual(["a"]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await begun(pieces)).toEqual(["a", "b"]);
});

test("of more pieces as many go at a time, and without a rest the next begins at once", async () => {
  const way = giveWay({ pieces: 2, rest: 0 });
  way.little(OTHER);
  const pieces = ["a", "b", "c"].map((name) => ask(way, name));
  await vi.advanceTimersByTimeAsync(30);
  expect(await begun(pieces)).toEqual(["a", "b"]);
  pieces[0]?.end?.();
  expect(await begun(pieces)).toEqual(["a", "b", "c"]);
});

test("the rest is never longer than 50 ms, and ends with the half second in which more is expected", async () => {
  const way = giveWay(ONE);
  way.little(OTHER);
  const pieces = ["a", "b", "c"].map((name) => ask(way, name));
  await vi.advanceTimersByTimeAsync(300);
  pieces[0]?.end?.();
  await vi.advanceTimersByTimeAsync(50);
  expect(await begun(pieces)).toEqual(["a", "b"]);
  await vi.advanceTimersByTimeAsync(130);
  pieces[1]?.end?.();
  await vi.advanceTimersByTimeAsync(20);
  expect(await begun(pieces)).toEqual(["a", "b", "c"]);
});

test("to its own little nobody gives way, whoever else had some before", async () => {
  const way = giveWay(ONE);
  way.little(FLOOD);
  expect(await begun(["a", "b"].map((name) => ask(way, name)))).toEqual(["a", "b"]);
  // The other's much has that tenant's little beside it.
  const others = ["c", "d"].map((name) => ask(way, name, { tenant: OTHER }));
  expect(await begun(others)).toEqual([]);

  way.little(OTHER);
  way.little(FLOOD);
  const late = ask(way, "e");
  expect(await begun([late])).toEqual([]);
  await vi.advanceTimersByTimeAsync(501);
  expect(await begun([late, ...others])).toEqual(["e", "c", "d"]);
});

test("what is high gives way to others' little alone, and goes before what waits", async () => {
  const way = giveWay(ONE);
  way.urgent();
  const normal = ["a", "b"].map((name) => ask(way, name));
  const high = ["c", "d"].map((name) => ask(way, name, { isHigh: true }));
  expect(await begun([...normal, ...high])).toEqual(["a", "c", "d"]);

  way.little(OTHER);
  const order: string[] = [];
  ask(way, "e", { order });
  for (const name of ["f", "g"]) ask(way, name, { isHigh: true, order });
  await begun([]);
  expect(order).toEqual([]);
  for (const { end } of [...normal, ...high]) end?.();
  await vi.advanceTimersByTimeAsync(1000);
  expect(order).toEqual(["f", "g", "e"]);
});

/** Keeps two pieces at it, as a flood does that has the slots of a lane, until the test ends. */
function flood(way: GiveWay, tenant: string, options: { isHigh?: boolean } = {}): Disposable {
  let on = true;
  const run = async (delay: number): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, delay));
    while (on) {
      const end = await way.turn(tenant, options);
      await new Promise((resolve) => setTimeout(resolve, 20));
      end();
    }
  };
  for (const delay of [0, 10]) void run(delay);
  return {
    [Symbol.dispose]() {
      on = false;
    },
  };
}

function steadily(comes: () => void): Disposable {
  comes();
  const timer = setInterval(comes, 100);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

test.each(["little", "urgent"])(
  "a flood of what is high lets all else have its turn beside what is %s",
  async (what) => {
    const way = giveWay(ONE);
    using _comes = steadily(() => (what === "little" ? way.little(OTHER) : way.urgent()));
    using _flood = flood(way, FLOOD, { isHigh: true });
    await vi.advanceTimersByTimeAsync(100);
    const normal = ask(way, "normal", { tenant: "third" });
    await vi.advanceTimersByTimeAsync(400);
    expect(await begun([normal])).toEqual(["normal"]);
  },
);

test("a flood that has little as well lets another's much have its turn", async () => {
  const way = giveWay(ONE);
  using _comes = steadily(() => way.little(FLOOD));
  using _flood = flood(way, FLOOD);
  await vi.advanceTimersByTimeAsync(100);
  const other = ask(way, "other", { tenant: OTHER });
  await vi.advanceTimersByTimeAsync(400);
  expect(await begun([other])).toEqual(["other"]);
});

test("what is to hurry begins at once, and is counted like the others", async () => {
  const way = giveWay(ONE);
  way.little(OTHER);
  const hurry = new AbortController();
  const order: string[] = [];
  const pieces = ["a", "b", "c"].map((name) => {
    const piece = { name, end: undefined as (() => void) | undefined };
    void way.turn(FLOOD, name === "c" ? { hurry: hurry.signal } : {}).then((end) => {
      order.push(name);
      piece.end = end;
    });
    return piece;
  });
  expect(await begun(pieces)).toEqual(["a"]);
  hurry.abort();
  expect(await begun(pieces)).toEqual(["a", "c"]);
  pieces[0]?.end?.();
  await vi.advanceTimersByTimeAsync(100);
  expect(order).toEqual(["a", "c"]);
  pieces[2]?.end?.();
  await vi.advanceTimersByTimeAsync(100);
  expect(order).toEqual(["a", "c", "b"]);
});
