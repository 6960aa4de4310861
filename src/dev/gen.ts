// `npm run gen`: makes gen/ from proto/ and the README's table from the configuration, offline and reproducibly. Before
// that it writes the one file of proto/ that is not ours, from the package that has it: with it proto/ compiles by itself,
// for every language and without a schema registry.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { withConfigTable } from "#src/config/describe.ts";
import { printProto } from "./print-proto.ts";

const root = new URL("../../", import.meta.url);
const definitions = new URL("proto/buf/validate/", root);
const origin =
  "// Protovalidate's definitions, from the npm package @bufbuild/protovalidate by `npm run gen`. Do not edit.\n";
mkdirSync(definitions, { recursive: true });
writeFileSync(new URL("validate.proto", definitions), origin + printProto(file_buf_validate_validate));
const result = spawnSync("buf", ["generate"], { cwd: root, stdio: "inherit" });
process.exitCode = result.status ?? 1;
const readme = new URL("README.md", root);
const text = readFileSync(readme, "utf8");
const current = withConfigTable(text);
if (current !== undefined && current !== text) writeFileSync(readme, current);
