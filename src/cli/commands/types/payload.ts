import { readFileSync } from "node:fs";
import { createFileRegistry, type DescField, fromBinary } from "@bufbuild/protobuf";
import { FieldDescriptorProto_Type as FieldType, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  GetPayloadResponseSchema,
  type PayloadContract,
  PushPayloadResponseSchema,
  TypeService,
} from "#gen/posthorn/v1/type_service_pb.ts";
import { withoutSourceInfo } from "#src/types/payload/descriptor-set.ts";
import { connect, optionsOf } from "../../connection.ts";
import { wholeNumber } from "../../parse.ts";
import { columns, jsonLine, plain, when } from "../../print.ts";
import { UsageError, type World } from "../../world.ts";

type SetOptions = { descriptorSet: string; message: string };

/** `types push` and `types show`: the protobuf message that a type's payloads are. */
export function payloadCommands(types: Command, world: World): void {
  withSet(types.command("push"))
    .description("make a protobuf message the type's payload contract, or a new version of it")
    .option("--if-version <n>", "push only if this is still the current version", wholeNumber(1, 2 ** 31 - 1))
    .action(async (type: string, _, command: Command) => {
      const options = optionsOf<SetOptions & { ifVersion?: number }>(command);
      const descriptorSet = readSet(options.descriptorSet);
      const client = connect(world, options).client(TypeService);
      const request = { type, descriptorSet, message: options.message, version: options.ifVersion ?? 0 };
      const response = await client.pushPayload(request, { signal: world.signal });
      if (options.json) world.out(jsonLine(PushPayloadResponseSchema, response));
      else {
        const { version = 0, message = "" } = response.contract ?? {};
        const what = response.created ? "is now" : "was already";
        world.out(`${plain(type)}: ${plain(message)} ${what} its payload contract, version ${version}`);
      }
    });

  types
    .command("show")
    .description("show a type's payload contract: its fields, and the versions before it")
    .argument("<type>", "key of the type")
    .option("--version <n>", "this version; default: the current one", wholeNumber(1, 2 ** 31 - 1))
    .action(async (type: string, _, command: Command) => {
      const options = optionsOf<{ version?: number }>(command);
      const client = connect(world, options).client(TypeService);
      const found = await client.getPayload({ type, version: options.version ?? 0 }, { signal: world.signal });
      if (options.json) {
        world.out(jsonLine(GetPayloadResponseSchema, found));
        return;
      }
      const { contracts, nextPageToken } = await client.listPayloads({ type, pageSize: 20 }, { signal: world.signal });
      const { contract } = found;
      world.out(`${plain(contract?.message ?? "")}, version ${contract?.version ?? 0}`);
      for (const line of columns(fieldsOf(found.descriptorSet, contract), "  ")) world.out(line);
      world.out("");
      for (const line of columns(contracts.map(versionRow))) world.out(line);
      if (nextPageToken !== "") world.out("…");
    });
}

/** A command about a type and a descriptor set. */
export function withSet(command: Command): Command {
  return command
    .argument("<type>", "key of the type")
    .requiredOption("--descriptor-set <file>", "what `buf build -o FILE` or `protoc --include_imports -o FILE` wrote")
    .requiredOption("--message <name>", "full name of the message, such as acme.orders.v1.OrderShipped");
}

/** The descriptors in a file, without their comments, which can be most of it. */
export function readSet(file: string): Uint8Array {
  const fix = "Write one with: buf build -o FILE, or: protoc --include_imports --descriptor_set_out=FILE …";
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : error}`, fix);
  }
  try {
    return withoutSourceInfo(bytes);
  } catch {
    throw new UsageError(`${file} is no descriptor set`, fix);
  }
}

function fieldsOf(descriptorSet: Uint8Array, contract: PayloadContract | undefined): string[][] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
  const fields = registry.getMessage(contract?.message ?? "")?.fields ?? [];
  return fields.map((field) => [`${field.number}`, plain(field.name), plain(typeOf(field))]);
}

function typeOf(field: DescField): string {
  const single = field.message?.typeName ?? field.enum?.typeName ?? scalarName(field);
  return field.fieldKind === "list" ? `${single} …` : field.fieldKind === "map" ? `map of ${single}` : single;
}

function scalarName({ proto }: DescField): string {
  return FieldType[proto.type]?.toLowerCase() ?? "";
}

function versionRow(contract: PayloadContract): string[] {
  return [`${contract.version}`, when(contract.createTime), plain(contract.message), plain(contract.creator)];
}
