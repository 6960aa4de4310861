import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

const env = { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly", GOPROXY: "off", CGO_ENABLED: "0" };
const go = (...args: string[]) =>
  spawnSync("go", args, { cwd: join(import.meta.dirname, "client"), env, encoding: "utf8" });

/** What go.mod asks for. */
const [, minor = 0] = /go1\.(\d+)/.exec(go("version").stdout ?? "") ?? [];
const isThere = Number(minor) >= 23;

// Only the part without dependencies: the rest is compiled by every benchmark.
test.skipIf(!isThere)(
  "the load client's sense of time passes its tests (needs go 1.23)",
  () => {
    const { status, stdout, stderr } = go("test", "-count=1", "./measure");
    expect(`${stdout}${stderr}`).toMatch(/^ok/m);
    expect(status).toBe(0);
  },
  120_000,
);
