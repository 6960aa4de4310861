import type { DescFile } from "@bufbuild/protobuf";
import * as wellKnown from "@bufbuild/protobuf/wkt";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/**
 * Files that are taken from here whatever a set brings under their names: libraries know their messages by name, and take
 * for granted what is in them.
 */
export const OWN_FILES: ReadonlyMap<string, DescFile> = new Map(
  [...Object.values(wellKnown).filter(isFile), file_buf_validate_validate].map((file) => [file.proto.name, file]),
);

/** Packages that are ours alone, with all below them. */
export const OWN_PACKAGES = ["google.protobuf", "buf.validate"] as const;

function isFile(value: unknown): value is DescFile {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "file";
}

export function isOwn({ file }: { readonly file: DescFile }): boolean {
  return OWN_FILES.has(file.proto.name);
}
