// `npm run gen`: makes gen/ from proto/ and deploy/CONFIGURATION.md from the settings, offline and reproducibly. Before
// that it writes the files of proto/ that are other people's, from the packages that have them: so proto/ compiles by
// itself, for every language and without a schema registry.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { protoPath as healthProto } from "grpc-health-check";
import { configDocument } from "#src/config/describe.ts";
import { printProto } from "./print-proto.ts";

const root = new URL("../../", import.meta.url);
const origin = (npm: string) => `// From the npm package ${npm} by \`npm run gen\`. Do not edit.\n`;
adopt("buf/validate/validate.proto", origin("@bufbuild/protovalidate") + printProto(file_buf_validate_validate));
adopt("grpc/health/v1/health.proto", origin("grpc-health-check") + readFileSync(healthProto, "utf8"));

const result = spawnSync("buf", ["generate"], { cwd: root, stdio: "inherit" });
process.exitCode = result.status ?? 1;
writeFileSync(new URL("deploy/CONFIGURATION.md", root), configDocument());

function adopt(path: string, text: string): void {
  const file = new URL(path, new URL("proto/", root));
  mkdirSync(new URL(".", file), { recursive: true });
  writeFileSync(file, text);
}
