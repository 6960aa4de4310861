import { isFieldSet } from "@bufbuild/protobuf";
import { protoCamelCase } from "@bufbuild/protobuf/reflect";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProtoSchema,
  type FileDescriptorProto,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { DescriptorFault, named } from "./descriptor-fault.ts";
import { OWN_FILES, OWN_PACKAGES } from "./own-files.ts";

const MAX_MESSAGES = 1_000;
const MAX_FIELDS = 5_000;
const MAX_ENUM_VALUES = 5_000;
const MAX_NESTING = 10;

const FILE_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,254}$/;
const PACKAGE = /^([A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,15})?$/;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: none shall be in it.
const JSON_NAME = /^[^\u0000-\u001f\u007f[\]]{1,128}$/;

const KEY_TYPES: ReadonlySet<number> = new Set([
  ...[Type.INT32, Type.INT64, Type.UINT32, Type.UINT64, Type.SINT32, Type.SINT64],
  ...[Type.FIXED32, Type.FIXED64, Type.SFIXED32, Type.SFIXED64, Type.BOOL, Type.STRING],
]);

type Kind = "message" | "map entry" | "enum" | "other";

/**
 * What compilers make sure of, and a set made by hand need not keep: names, numbers, references. Fills in the names in
 * JSON that are missing. Throws DescriptorFault.
 */
export function checkFiles(files: readonly FileDescriptorProto[]): void {
  const symbols = new Map<string, Kind>();
  const counts = { messages: 0, fields: 0, values: 0 };
  for (const file of OWN_FILES.values()) {
    for (const { typeName } of file.enums) symbols.set(typeName, "enum");
    const add = (messages: typeof file.messages): void => {
      for (const { typeName, nestedMessages, nestedEnums } of messages) {
        symbols.set(typeName, "message");
        for (const inner of nestedEnums) symbols.set(inner.typeName, "enum");
        add(nestedMessages);
      }
    };
    add(file.messages);
  }
  for (const file of files) declare(file, symbols, counts);
  for (const file of files) {
    for (const message of file.messageType) checkMessage(message, join(file.package, message.name), symbols);
    for (const extension of file.extension) checkExtension(extension, join(file.package, extension.name), symbols);
  }
}

function declare(
  file: FileDescriptorProto,
  symbols: Map<string, Kind>,
  counts: { messages: number; fields: number; values: number },
): void {
  const where = named(file.name);
  if (!FILE_NAME.test(file.name) || file.name.includes(".."))
    throw new DescriptorFault(`${where} is no name of a file`);
  if (!PACKAGE.test(file.package)) throw new DescriptorFault(`${where}: ${named(file.package)} is no package`);
  for (const own of OWN_PACKAGES) {
    if (`${file.package}.`.startsWith(`${own}.`)) {
      throw new DescriptorFault(`${where}: nobody else may declare anything in the package ${own}`);
    }
  }
  const add = (scope: string, name: string, kind: Kind): string => {
    if (!NAME.test(name)) throw new DescriptorFault(`${where}: ${named(name)} is no name`);
    const full = join(scope, name);
    if (symbols.has(full)) throw new DescriptorFault(`${where}: ${named(full)} is declared twice`);
    symbols.set(full, kind);
    return full;
  };
  const addEnum = (scope: string, declared: EnumDescriptorProto): void => {
    const full = add(scope, declared.name, "enum");
    counts.values += declared.value.length;
    if (counts.values > MAX_ENUM_VALUES) throw new DescriptorFault(`has more than ${MAX_ENUM_VALUES} values of enums`);
    if (declared.value.length === 0) throw new DescriptorFault(`${where}: ${named(full)} has no values`);
    const names = new Set<string>();
    for (const { name } of declared.value) {
      if (!NAME.test(name)) throw new DescriptorFault(`${where}: ${named(name)} is no name`);
      if (names.has(name)) throw new DescriptorFault(`${where}: ${named(full)} has ${named(name)} twice`);
      names.add(name);
    }
  };
  const addMessage = (scope: string, message: DescriptorProto, depth: number): void => {
    const full = add(scope, message.name, message.options?.mapEntry === true ? "map entry" : "message");
    if (depth > MAX_NESTING) throw new DescriptorFault(`${named(full)} is nested more than ${MAX_NESTING} deep`);
    if (++counts.messages > MAX_MESSAGES) throw new DescriptorFault(`has more than ${MAX_MESSAGES} messages`);
    counts.fields += message.field.length;
    if (counts.fields > MAX_FIELDS) throw new DescriptorFault(`has more than ${MAX_FIELDS} fields`);
    for (const inner of message.enumType) addEnum(full, inner);
    for (const inner of message.nestedType) addMessage(full, inner, depth + 1);
    for (const inner of message.extension) add(full, inner.name, "other");
  };
  for (const each of file.enumType) addEnum(file.package, each);
  for (const each of file.messageType) addMessage(file.package, each, 1);
  for (const each of file.extension) add(file.package, each.name, "other");
  for (const each of file.service) add(file.package, each.name, "other");
}

function checkMessage(message: DescriptorProto, full: string, symbols: ReadonlyMap<string, Kind>): void {
  if (message.options?.messageSetWireFormat)
    throw new DescriptorFault(`${named(full)}: message sets are not supported`);
  const numbers = new Set<number>();
  const names = new Set<string>();
  for (const field of message.field) {
    const at = join(full, field.name);
    if (!NAME.test(field.name)) throw new DescriptorFault(`${named(full)}: ${named(field.name)} is no name`);
    if (field.jsonName === "") field.jsonName = protoCamelCase(field.name);
    if (!JSON_NAME.test(field.jsonName)) throw new DescriptorFault(`${named(at)} has no usable name in JSON`);
    checkNumber(field, at);
    if (numbers.has(field.number)) throw new DescriptorFault(`${named(at)} has the number of another field`);
    numbers.add(field.number);
    for (const name of new Set([field.name, field.jsonName])) {
      if (names.has(name)) throw new DescriptorFault(`${named(at)} has the name of another field, in JSON at least`);
      names.add(name);
    }
    if (field.oneofIndex < 0 || (field.oneofIndex > 0 && field.oneofIndex >= message.oneofDecl.length)) {
      throw new DescriptorFault(`${named(at)} is of a oneof that is not there`);
    }
    checkType(field, at, full, symbols);
  }
  for (const { name } of message.oneofDecl) {
    if (!NAME.test(name)) throw new DescriptorFault(`${named(full)}: ${named(name)} is no name`);
    if (names.has(name)) throw new DescriptorFault(`${named(full)}: the oneof ${named(name)} has the name of another`);
    names.add(name);
  }
  if (message.options?.mapEntry) checkEntry(message, full);
  for (const inner of message.nestedType) checkMessage(inner, join(full, inner.name), symbols);
  for (const inner of message.extension) checkExtension(inner, join(full, inner.name), symbols);
}

/** https://protobuf.dev/programming-guides/proto3/#assigning */
function checkNumber(field: FieldDescriptorProto, at: string): void {
  const { number } = field;
  if (number < 1 || number > 536_870_911 || (number >= 19_000 && number <= 19_999)) {
    throw new DescriptorFault(`${named(at)}: ${number} is no number for a field`);
  }
}

function checkType(field: FieldDescriptorProto, at: string, parent: string, symbols: ReadonlyMap<string, Kind>): void {
  // What is no label or type was not read.
  const { label, type } = FieldDescriptorProtoSchema.field;
  if (!isFieldSet(field, label)) throw new DescriptorFault(`${named(at)} has no label`);
  if (!isFieldSet(field, type)) throw new DescriptorFault(`${named(at)} has no type`);
  const isMessage = field.type === Type.MESSAGE || field.type === Type.GROUP;
  if (!isMessage && field.type !== Type.ENUM) return;
  const name = field.typeName.replace(/^\./, "");
  const kind = symbols.get(name);
  const isEntry =
    kind === "map entry" && name.slice(0, name.lastIndexOf(".")) === parent && field.label === Label.REPEATED;
  if (isMessage ? kind !== "message" && !isEntry : kind !== "enum") {
    throw new DescriptorFault(
      `${named(at)} is of type ${named(field.typeName)}, which is not there or of another kind`,
    );
  }
}

function checkEntry({ field, nestedType }: DescriptorProto, full: string): void {
  const [key, value] = field;
  const isEntry =
    field.length === 2 &&
    nestedType.length === 0 &&
    key?.name === "key" &&
    key.number === 1 &&
    KEY_TYPES.has(key.type) &&
    value?.name === "value" &&
    value.number === 2 &&
    value.type !== Type.GROUP &&
    field.every(({ label }) => label === Label.OPTIONAL);
  if (!isEntry) throw new DescriptorFault(`${named(full)} is no entry of a map`);
}

function checkExtension(field: FieldDescriptorProto, at: string, symbols: ReadonlyMap<string, Kind>): void {
  checkNumber(field, at);
  checkType(field, at, "", symbols);
  if (symbols.get(field.extendee.replace(/^\./, "")) !== "message") {
    throw new DescriptorFault(`${named(at)} extends ${named(field.extendee)}, which is not there`);
  }
}

function join(scope: string, name: string): string {
  return scope === "" ? name : `${scope}.${name}`;
}
