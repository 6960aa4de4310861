import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** A pure function's memory: buf takes its time. */
const built = new Map<string, Uint8Array>();

/** What `buf build -o` writes for these files (names and texts), which may import buf/validate and google/protobuf. */
export function build(files: Readonly<Record<string, string>>): Uint8Array {
  const key = JSON.stringify(files);
  const set = built.get(key) ?? newlyBuilt(files);
  built.set(key, set);
  return set;
}

function newlyBuilt(files: Readonly<Record<string, string>>): Uint8Array {
  const dir = mkdtempSync(join(tmpdir(), "posthorn-protos-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), text);
    }
    cpSync(join(ROOT, "proto/buf"), join(dir, "buf"), { recursive: true });
    writeFileSync(join(dir, "buf.yaml"), "version: v2\n");
    const out = join(dir, "set.binpb");
    const buf = join(ROOT, "node_modules/.bin/buf");
    execFileSync(buf, ["build", "-o", out, "--as-file-descriptor-set"], {
      cwd: dir,
      stdio: ["ignore", "pipe", "pipe"],
    });
    return readFileSync(out);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A message `acme.Shipped` with these fields, in a file that may use validation rules. */
export function shipped(body: string, { more = "", syntax = "proto3" } = {}): Uint8Array {
  return build({ "acme/shipped.proto": shippedProto(body, { more, syntax }) });
}

export function shippedProto(body: string, { more = "", syntax = "proto3" } = {}): string {
  return `syntax = "${syntax}";
package acme;
import "buf/validate/validate.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
${more}
message Shipped {
${body}
}
`;
}
