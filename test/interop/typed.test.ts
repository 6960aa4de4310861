// Another team's service in Python, with a proto package of its own: pushed, validated on Send, evolved and refused, all by
// the command line and by that team's stock compiler.
import { execFile } from "node:child_process";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { PYTHON, VENV } from "#src/dev/toolchains.ts";
import { testWorld } from "../cli/world.ts";
import { startTestPlatform } from "../support/platform.ts";
import { build } from "./toolchain.ts";

const capture = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const built = await build("python", [PYTHON, VENV]);

const FIELDS = `string order_id = 1 [(buf.validate.field).string.min_len = 3];
  int32 parcels = 2 [(buf.validate.field).int32.gt = 0];`;
const PROTO = "acme/orders/v1/shipped.proto";
const proto = (fields: string) => `syntax = "proto3";
package acme.orders.v1;
import "buf/validate/validate.proto";
message OrderShipped {
  ${fields}
}
`;

if (built.kind === "missing") test.skip(`a proto package in Python (needs ${built.what})`, () => undefined);
else
  test("a team's own message, from its first version to one that breaks", async () => {
    await using node = await startTestPlatform();
    using world = testWorld({
      env: { POSTHORN_SERVER: node.platform.grpcUrl, POSTHORN_API_KEY: node.tenant.apiKey },
    });
    // Beside what others run there.
    const dir = join(built.directory, "typed");
    await rm(dir, { recursive: true, force: true });
    await mkdir(join(dir, "gen"), { recursive: true });
    await mkdir(join(dir, "acme/orders/v1"), { recursive: true });
    await cp(join(root, "test/interop/python/typed.py"), join(dir, "typed.py"));
    const interpreter = join(built.directory, "venv/bin/python");
    const compile = async (fields: string, more: readonly string[] = []) => {
      await writeFile(join(dir, PROTO), proto(fields));
      const includes = ["-I", dir, "-I", join(root, "proto")];
      const out = ["--include_imports", "--include_source_info", "--descriptor_set_out=orders.binpb", ...more];
      await capture(interpreter, ["-m", "grpc_tools.protoc", ...includes, ...out, PROTO], { cwd: dir });
    };
    const posthorn = (command: string) =>
      world.run(
        `types ${command} order_shipped --descriptor-set ${dir}/orders.binpb --message acme.orders.v1.OrderShipped`,
      );
    const service = async (user: string) => {
      const env = {
        ...process.env,
        PYTHONPATH: [join(dir, "gen"), join(built.directory, "gen")].join(":"),
        POSTHORN_ADDRESS: node.platform.grpcUrl,
        POSTHORN_API_KEY: node.tenant.apiKey,
        POSTHORN_USER: user,
      };
      const { stdout } = await capture(interpreter, ["typed.py"], { cwd: dir, env });
      return stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as object);
    };
    const story = (version: number) => [
      { sent: "A-17" },
      {
        refused: {
          "content.payload.order_id": "must be at least 3 characters (string.min_len)",
          "content.payload.parcels": "must be greater than 0 (int32.gt)",
        },
      },
      { read: "A-17", parcels: 2, version, all: 1 },
    ];

    await writeFile(join(dir, "types.json"), '[{"key": "order_shipped"}]');
    expect((await world.run(`types load ${dir}/types.json`)).exitCode).toBe(0);
    await compile(FIELDS, ["--python_out=gen"]);
    expect((await posthorn("push")).out).toEqual([
      "order_shipped: acme.orders.v1.OrderShipped is now its payload contract, version 1",
    ]);
    expect(await service("ann")).toEqual(story(1));

    // The service itself is deployed later: its class is still the first one.
    await compile(`${FIELDS} string carrier = 3;`);
    expect(await posthorn("check")).toMatchObject({ exitCode: 0, out: [] });
    expect((await posthorn("push")).exitCode).toBe(0);
    expect(await service("bea")).toEqual(story(2));

    await compile(FIELDS.replace("int32 parcels = 2", "int32 packets = 2"));
    const refused = await posthorn("check --annotations github");
    expect(refused.exitCode).toBe(1);
    expect(refused.out).toEqual([
      'acme.orders.v1.OrderShipped.parcels: is named "packets" now (FIELD_SAME_NAME)',
      'acme.orders.v1.OrderShipped.parcels: is "packets" in JSON now, not "parcels" (FIELD_SAME_JSON_NAME)',
      "acme.orders.v1.OrderShipped.carrier: was deleted without reserving its number 3 (FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED)",
      "acme.orders.v1.OrderShipped.carrier: was deleted without reserving its name (FIELD_NO_DELETE_UNLESS_NAME_RESERVED)",
    ]);
    expect(refused.err[0]).toMatch(/^::error file=acme\/orders\/v1\/shipped.proto,line=4,title=FIELD_SAME_NAME::/);
    expect((await posthorn("push")).exitCode).toBe(1);
    expect(await service("cay")).toEqual(story(2));
    expect(await readFile(join(dir, PROTO), "utf8")).toContain("packets");
  }, 240_000);
