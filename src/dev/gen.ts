// `npm run gen`: makes gen/ from proto/, offline and reproducibly.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { printProto } from "./print-proto.ts";

const root = new URL("../../", import.meta.url);
const module = new URL(".cache/protovalidate/buf/validate/", root);
mkdirSync(module, { recursive: true });
writeFileSync(new URL("validate.proto", module), printProto(file_buf_validate_validate));
if (!process.argv.includes("--prepare-only")) {
  const result = spawnSync("buf", ["generate"], { cwd: root, stdio: "inherit" });
  process.exitCode = result.status ?? 1;
}
