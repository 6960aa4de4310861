import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { poolGate, Unreached } from "#src/store/gate.ts";
import { faultOf } from "../support/rejection.ts";
import { until } from "../support/until.ts";

const AWAY = { reason: ErrorReason.DEPENDENCY_UNAVAILABLE };
const options = { size: 2, maxCalls: 4, deadlineMs: 10_000 };
/** A call that ends when the test says so. */
const held = () => Promise.withResolvers<string>();

test("so many at once, the others in order, and beyond that none", async () => {
  const gate = poolGate(options);
  const works = [held(), held(), held(), held()];
  const began: number[] = [];
  const calls = works.map((work, n) =>
    gate(() => {
      began.push(n);
      return work.promise;
    }),
  );
  expect(await faultOf(gate(async () => "too many"))).toMatchObject({ reason: ErrorReason.OVERLOADED });
  expect(began).toEqual([0, 1]);
  works[1]?.resolve("b");
  expect(await calls[1]).toBe("b");
  await new Promise(setImmediate);
  expect(began).toEqual([0, 1, 2]);
  works[0]?.reject(new Error("its own"));
  await expect(calls[0]).rejects.toThrow("its own");
  for (const work of works) work.resolve("done");
  expect(await Promise.all(calls.slice(2))).toEqual(["done", "done"]);
  expect(began).toEqual([0, 1, 2, 3]);
});

test("when one finds no way, all that wait are told, and one call at a time looks again", async () => {
  const gate = poolGate(options);
  const works = [held(), held()];
  const running = works.map((work) => gate(() => work.promise));
  const waiting = faultOf(gate(async () => "waits"));
  const failed = running[0]?.catch((error: unknown) => error);
  works[0]?.reject(new Unreached(new Error("refused")));
  expect(await failed).toBeInstanceOf(Unreached);
  expect(await waiting).toMatchObject(AWAY);
  let tried = 0;
  const trial = held();
  const look = () =>
    gate(() => {
      tried++;
      return trial.promise;
    });
  expect(await faultOf(look())).toMatchObject(AWAY);
  expect(tried).toBe(0);
  const looking = await (async () => {
    for (;;) {
      const call = look();
      call.catch(() => undefined);
      if (tried > 0) return { call };
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  expect(await faultOf(look())).toMatchObject(AWAY);
  trial.resolve("there again");
  expect(await looking.call).toBe("there again");
  expect(await gate(async () => "open")).toBe("open");
  works[1]?.resolve("late");
  expect(await running[1]).toBe("late");
});

test("a connection that ends under its transaction does not say that Postgres is there again", async () => {
  const gate = poolGate(options);
  const silent = held();
  const cut = gate(() => silent.promise).catch((error: Error) => error.message);
  await gate(() => Promise.reject(new Unreached(new Error("refused")))).catch(() => undefined);
  silent.reject(Object.assign(new Error("Postgres has fallen silent"), { code: "CONNECTION_TIMEOUT" }));
  expect(await cut).toBe("Postgres has fallen silent");
  const looks = [0, 1].map(() => faultOf(gate(() => Promise.reject(new Unreached(new Error("refused"))))));
  expect(await Promise.all(looks)).toMatchObject([AWAY, AWAY]);

  let tried = 0;
  const look = () =>
    gate(async () => {
      if (tried++ === 0) throw Object.assign(new Error("cut off"), { code: "ECONNRESET" });
      return "there again";
    }).catch(() => undefined);
  expect(await until(look, (answer) => answer !== undefined, 2000)).toBe("there again");
  expect(tried).toBe(2);
});

test("however many old connections end, and however, one call at a time looks", async () => {
  const gate = poolGate({ ...options, size: 6 });
  const olds = [held(), held(), held(), held()];
  const ends = olds.map((old) => gate(() => old.promise).catch((error: Error) => error.message));
  await gate(() => Promise.reject(new Unreached(new Error("refused")))).catch(() => undefined);
  const trial = held();
  let looking = 0;
  const look = async () => {
    const call = gate(() => {
      looking++;
      return trial.promise;
    });
    call.catch(() => undefined);
    return looking;
  };
  await until(look, (n) => n === 1, 2000);
  const [last, ...cut] = olds;
  for (const old of cut) {
    old.reject(Object.assign(new Error("cut off"), { code: "ECONNRESET" }));
    await new Promise(setImmediate);
    await look();
  }
  last?.reject(new Unreached(new Error("refused")));
  expect(await Promise.all(ends)).toEqual(["Postgres cannot be reached", "cut off", "cut off", "cut off"]);
  const mayLookAgain = performance.now() + 300;
  await until(look, () => performance.now() > mayLookAgain, 2000);
  expect(looking).toBe(1);
});

test.each(["ECONNRESET", "ETIMEDOUT"])("a connection cut off in a silence (%s) is no answer in it", async (code) => {
  const gate = poolGate({ ...options, deadlineMs: 100 });
  const silent = faultOf(gate(() => new Promise(() => undefined)));
  const cutOff = Object.assign(new Error("cut off"), { code });
  await expect(gate(() => Promise.reject(cutOff))).rejects.toBe(cutOff);
  expect(await silent).toMatchObject(AWAY);
  const looking = faultOf(gate(() => new Promise(() => undefined)));
  expect(await faultOf(gate(async () => "a second"))).toMatchObject(AWAY);
  expect(await looking).toMatchObject(AWAY);
});

test("one that does not end is given up alone while others do", async () => {
  const gate = poolGate({ ...options, deadlineMs: 100 });
  const stuck = faultOf(gate(() => new Promise(() => undefined)));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await gate(async () => "quick");
  expect(await stuck).toMatchObject(AWAY);
  expect(await Promise.all([1, 2, 3].map((n) => gate(async () => n)))).toEqual([1, 2, 3]);
});

test("what waits too long is given up without having begun", async () => {
  const gate = poolGate({ ...options, size: 1, deadlineMs: 100 });
  const work = held();
  const first = faultOf(gate(() => work.promise));
  let began = false;
  const second = faultOf(
    gate(async () => {
      began = true;
    }),
  );
  expect(await second).toMatchObject(AWAY);
  expect(await first).toMatchObject(AWAY);
  work.resolve("nobody listens");
  expect(began).toBe(false);
  expect(await gate(async () => "next")).toBe("next");
});
