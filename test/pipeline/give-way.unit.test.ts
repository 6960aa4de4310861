import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type GiveWay, giveWay } from "#src/pipeline/give-way.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

type Piece = { name: string; end: (() => void) | undefined };

/** Asks for a turn; the piece has an end from when it has begun. */
function ask(way: GiveWay, name: string, order: string[] = []): Piece {
  const piece: Piece = { name, end: undefined };
  void way.turn().then((end) => {
    order.push(name);
    piece.end = end;
  });
  return piece;
}
const begun = async (pieces: readonly Piece[]) => {
  await vi.advanceTimersByTimeAsync(0);
  return pieces.filter(({ end }) => end !== undefined).map(({ name }) => name);
};

test("while nothing is urgent everything begins at once", async () => {
  const way = giveWay();
  expect(await begun(["a", "b", "c"].map((name) => ask(way, name)))).toEqual(["a", "b", "c"]);
});

test("while urgent work comes one piece goes at a time, in the order of asking, also after those that had begun", async () => {
  const way = giveWay();
  const order: string[] = [];
  const before = ["a", "b"].map((name) => ask(way, name, order));
  expect(await begun(before)).toEqual(["a", "b"]);
  way.urgent();
  const after = ["c", "d", "e"].map((name) => ask(way, name, order));
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

test("half a second after the last that was urgent all who wait begin", async () => {
  const way = giveWay();
  way.urgent();
  const pieces = ["a", "b", "c"].map((name) => ask(way, name));
  expect(await begun(pieces)).toEqual(["a"]);
  await vi.advanceTimersByTimeAsync(400);
  way.urgent();
  await vi.advanceTimersByTimeAsync(499);
  expect(await begun(pieces)).toEqual(["a"]);
  await vi.advanceTimersByTimeAsync(2);
  expect(await begun(pieces)).toEqual(["a", "b", "c"]);
  for (const { end } of pieces) end?.();
  expect(vi.getTimerCount()).toBe(0);
});

test("who begins late is counted like the others", async () => {
  const way = giveWay();
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
  const way = giveWay();
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
