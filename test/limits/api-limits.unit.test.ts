import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { createApiLimits } from "#src/limits/api-limits.ts";
import { take } from "#src/limits/api-limits-gcra.ts";
import type { Principal } from "#src/rpc/call.ts";

const key = (keyId: string, tenantId = "t1"): Principal => ({
  kind: "key",
  tenantId,
  keyId,
  scopes: new Set(),
  expiresAt: undefined,
});
const user = (userId: string, tenantId = "t1"): Principal => ({
  kind: "user",
  tenantId,
  userId,
  issuedAt: undefined,
  expiresAt: new Date(0),
});
const none = { requestsPerSecond: 0, burst: 0 };

describe("the bucket", () => {
  test("never lets through more than the burst and what has refilled since", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000 }),
        fc.integer({ min: 1, max: 1_000 }),
        fc.array(fc.integer({ min: 0, max: 2_000 }), { maxLength: 200 }),
        (requestsPerSecond, burst, gaps) => {
          let state: number | undefined;
          let now = 5_000;
          const passed: number[] = [];
          for (const gap of gaps) {
            now += gap;
            for (let i = 0; i < 3; i++) {
              const taken = take({ requestsPerSecond, burst }, state, now);
              if (!taken.allowed) continue;
              state = taken.state;
              passed.push(now);
            }
          }
          for (let from = 0; from < passed.length; from++)
            for (let to = from; to < passed.length; to++) {
              const allowed = burst + ((passed[to]! - passed[from]!) / 1_000) * requestsPerSecond;
              expect(to - from + 1).toBeLessThanOrEqual(allowed + 1e-3);
            }
        },
      ),
    );
  });

  test("says when to come back, and keeps that promise", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 1, max: 50 }), (requestsPerSecond, burst) => {
        const rate = { requestsPerSecond, burst };
        let state: number | undefined;
        for (let i = 0; i < burst; i++) {
          const taken = take(rate, state, 0);
          state = taken.allowed ? taken.state : expect.fail("the burst was not granted");
        }
        const refused = take(rate, state, 0);
        if (refused.allowed) return expect.fail("more than the burst was granted");
        expect(refused.limit).toBe(burst);
        expect(take(rate, state, refused.retryAfterMs * 0.99).allowed).toBe(false);
        expect(take(rate, state, refused.retryAfterMs).allowed).toBe(true);
      }),
    );
  });
});

describe("API limits", () => {
  test("tell who is over what, and when to come back", () => {
    const limits = createApiLimits({ perKey: { requestsPerSecond: 10, burst: 20 }, perTenant: none }, () => 0);
    for (let i = 0; i < 20; i++) expect(limits(key("k1"))).toBeUndefined();
    const fault = limits(key("k1"));
    expect(fault).toMatchObject({
      reason: ErrorReason.API_LIMIT_EXCEEDED,
      retryAfterMs: 100,
      metadata: { limit: "20", usage: "20", window: "2s" },
      quota: [{ subject: "key:k1", description: "20 calls per 2s" }],
    });
    expect(limits(key("k2"))).toBeUndefined();
  });

  test("count a tenant's keys and users together, and tenants apart", () => {
    const limits = createApiLimits({ perKey: none, perTenant: { requestsPerSecond: 1, burst: 3 } }, () => 0);
    for (const each of [key("k1"), key("k2"), user("u1")]) expect(limits(each)).toBeUndefined();
    expect(limits(key("k3"))?.quota[0]?.subject).toBe("tenant:t1");
    expect(limits(key("k1", "t2"))).toBeUndefined();
  });

  test("keep one user from using up the tenant", () => {
    const limits = createApiLimits(
      { perKey: { requestsPerSecond: 1, burst: 2 }, perTenant: { requestsPerSecond: 1, burst: 10 } },
      () => 0,
    );
    const refused = Array.from({ length: 50 }, () => limits(user("u1"))).filter(Boolean);
    expect(refused).toHaveLength(48);
    expect(limits(user("u2"))).toBeUndefined();
    // The same id in another tenant is somebody else.
    expect(limits(user("u1", "t2"))).toBeUndefined();
  });

  test("a refused call costs nothing", () => {
    let now = 0;
    const limits = createApiLimits(
      { perKey: { requestsPerSecond: 1, burst: 1 }, perTenant: { requestsPerSecond: 1, burst: 1 } },
      () => now,
    );
    expect(limits(key("k1"))).toBeUndefined();
    for (let i = 0; i < 100; i++) expect(limits(key("k1"))).toBeDefined();
    now = 1_000;
    expect(limits(key("k1"))).toBeUndefined();
  });

  test("leave the operator alone", () => {
    const limits = createApiLimits({ perKey: { requestsPerSecond: 1, burst: 1 }, perTenant: none }, () => 0);
    for (let i = 0; i < 10; i++) expect(limits({ kind: "operator", tenantId: "t1" })).toBeUndefined();
  });
});
