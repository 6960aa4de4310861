// `npm run gen`: makes gen/ from proto/ and the README's table from the configuration, offline and reproducibly.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { withConfigTable } from "#src/config/describe.ts";
import { printProto } from "./print-proto.ts";

const root = new URL("../../", import.meta.url);
const module = new URL(".cache/protovalidate/buf/validate/", root);
mkdirSync(module, { recursive: true });
writeFileSync(new URL("validate.proto", module), printProto(file_buf_validate_validate));
if (!process.argv.includes("--prepare-only")) {
  const result = spawnSync("buf", ["generate"], { cwd: root, stdio: "inherit" });
  process.exitCode = result.status ?? 1;
  const readme = new URL("README.md", root);
  const text = readFileSync(readme, "utf8");
  const current = withConfigTable(text);
  if (current !== undefined && current !== text) writeFileSync(readme, current);
}
