import { fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { PayloadBreak } from "#gen/posthorn/v1/type_service_pb.ts";

/**
 * Breaks as workflow commands of GitHub Actions, which shows them beside the code. The lines are those of a set that has
 * kept its source information, at the symbol or, where that is gone, at what it was in.
 *
 * https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message
 */
export function annotations(breaks: readonly PayloadBreak[], set: Uint8Array): string[] {
  const lines = linesOf(fromBinary(FileDescriptorSetSchema, set).file);
  return breaks.map(({ rule, path, description, file }) => {
    const line = lines.get(path) ?? lines.get(path.slice(0, path.lastIndexOf(".")));
    const place = file === "" ? "" : `file=${property(file)},${line === undefined ? "" : `line=${line},`}`;
    return `::error ${place}title=${property(rule)}::${data(`${path}: ${description}`)}`;
  });
}

function data(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function property(text: string): string {
  return data(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}

// Numbers of fields in descriptor.proto: what a path in the source information is made of.
const [MESSAGES, FILE_ENUMS] = [4, 5];
const [FIELDS, NESTED, ENUMS] = [2, 3, 4];
const VALUES = 2;

/** The lines, from 1 on, on which messages, fields, enums and values are declared, by full name. */
function linesOf(files: readonly FileDescriptorProto[]): Map<string, number> {
  const lines = new Map<string, number>();
  for (const file of files) {
    const names = new Map<string, string>();
    const add = (path: readonly number[], name: string) => names.set(path.join("."), name);
    type Messages = FileDescriptorProto["messageType"];
    type Enums = FileDescriptorProto["enumType"];
    const addEnums = (enums: Enums, at: readonly number[], scope: string) =>
      enums.forEach((each, n) => {
        add([...at, n], scope + each.name);
        each.value.forEach((value, v) => {
          add([...at, n, VALUES, v], `${scope}${each.name}.${value.name}`);
        });
      });
    const addMessages = (messages: Messages, at: readonly number[], scope: string): void =>
      messages.forEach((each, n) => {
        const [path, name] = [[...at, n], scope + each.name];
        add(path, name);
        each.field.forEach((field, f) => {
          add([...path, FIELDS, f], `${name}.${field.name}`);
        });
        addMessages(each.nestedType, [...path, NESTED], `${name}.`);
        addEnums(each.enumType, [...path, ENUMS], `${name}.`);
      });
    const scope = file.package === "" ? "" : `${file.package}.`;
    addMessages(file.messageType, [MESSAGES], scope);
    addEnums(file.enumType, [FILE_ENUMS], scope);
    for (const { path, span } of file.sourceCodeInfo?.location ?? []) {
      const name = names.get(path.join("."));
      if (name !== undefined && !lines.has(name)) lines.set(name, (span[0] ?? 0) + 1);
    }
  }
  return lines;
}
