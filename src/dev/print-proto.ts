import {
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMessage,
  ScalarType,
} from "@bufbuild/protobuf";
import { Edition, FieldDescriptorProto_Label } from "@bufbuild/protobuf/wkt";

/**
 * Prints a file descriptor as `.proto` source: every definition, and where generated code goes, but no comments and no
 * other option values. Enough for a compiler to resolve names, types and custom options against; proto2 and proto3 only.
 */
export function printProto(file: DescFile): string {
  const proto2 = file.edition === Edition.EDITION_PROTO2;
  const out: string[] = [`syntax = "${proto2 ? "proto2" : "proto3"}";`, `package ${file.proto.package};`];
  for (const dependency of file.dependencies) out.push(`import "${dependency.name}.proto";`);
  const { goPackage, javaPackage, javaMultipleFiles } = file.proto.options ?? {};
  if (goPackage) out.push(`option go_package = "${goPackage}";`);
  if (javaPackage) out.push(`option java_package = "${javaPackage}";`);
  if (javaMultipleFiles) out.push("option java_multiple_files = true;");
  for (const extension of file.extensions) out.push(printExtension(extension, proto2));
  for (const enumeration of file.enums) out.push(...printEnum(enumeration, ""));
  for (const message of file.messages) out.push(...printMessage(message, "", proto2));
  return `${out.join("\n")}\n`;
}

function printMessage(message: DescMessage, indent: string, proto2: boolean): string[] {
  const inner = `${indent}  `;
  const out = [`${indent}message ${message.name} {`];
  for (const enumeration of message.nestedEnums) out.push(...printEnum(enumeration, inner));
  for (const nested of message.nestedMessages) {
    if (nested.proto.options?.mapEntry !== true) out.push(...printMessage(nested, inner, proto2));
  }
  for (const range of message.proto.extensionRange) {
    // Descriptors end ranges exclusively, the language inclusively.
    out.push(`${inner}extensions ${range.start} to ${(range.end ?? 0) - 1};`);
  }
  const printed = new Set<string>();
  for (const field of message.fields) {
    const oneof = field.oneof;
    if (oneof === undefined) {
      out.push(`${inner}${label(field, proto2)}${fieldType(field)} ${field.name} = ${field.number};`);
    } else if (!printed.has(oneof.name)) {
      printed.add(oneof.name);
      out.push(`${inner}oneof ${oneof.name} {`);
      for (const member of oneof.fields) out.push(`${inner}  ${fieldType(member)} ${member.name} = ${member.number};`);
      out.push(`${inner}}`);
    }
  }
  return [...out, `${indent}}`];
}

function printEnum(enumeration: DescEnum, indent: string): string[] {
  const alias = enumeration.proto.options?.allowAlias === true ? [`${indent}  option allow_alias = true;`] : [];
  const values = enumeration.values.map((value) => `${indent}  ${value.name} = ${value.number};`);
  return [`${indent}enum ${enumeration.name} {`, ...alias, ...values, `${indent}}`];
}

function printExtension(extension: DescExtension, proto2: boolean): string {
  const type = fieldType(extension);
  return `extend .${extension.extendee.typeName} { ${label(extension, proto2)}${type} ${extension.name} = ${extension.number}; }`;
}

function label(field: DescField | DescExtension, proto2: boolean): string {
  if (field.fieldKind === "map") return "";
  if (field.fieldKind === "list") return "repeated ";
  if (field.proto.label === FieldDescriptorProto_Label.REQUIRED) return "required ";
  return proto2 || field.proto.proto3Optional ? "optional " : "";
}

function fieldType(field: DescField | DescExtension): string {
  switch (field.fieldKind) {
    case "map": {
      const value = field.mapKind === "scalar" ? scalar(field.scalar) : `.${(field.message ?? field.enum).typeName}`;
      return `map<${scalar(field.mapKey)}, ${value}>`;
    }
    case "list":
      return field.listKind === "scalar" ? scalar(field.scalar) : `.${(field.message ?? field.enum).typeName}`;
    case "scalar":
      return scalar(field.scalar);
    case "enum":
      return `.${field.enum.typeName}`;
    case "message":
      return `.${field.message.typeName}`;
  }
}

function scalar(type: ScalarType): string {
  return ScalarType[type].toLowerCase();
}
