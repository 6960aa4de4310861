import { readFileSync, writeFileSync } from "node:fs";
import { createFileRegistry, type DescField, type FileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FieldDescriptorProto_Type as FieldType, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type Command, Option } from "commander";
import {
  type CheckPayloadResponse,
  CheckPayloadResponseSchema,
  GetPayloadResponseSchema,
  type PayloadContract,
  PushPayloadResponseSchema,
  TypeService,
} from "#gen/posthorn/v1/type_service_pb.ts";
import { withoutSourceInfo } from "#src/types/payload/descriptor-set.ts";
import { connect, optionsOf } from "../../connection.ts";
import { wholeNumber } from "../../parse.ts";
import { columns, jsonLine, plain, plural, when } from "../../print.ts";
import { Ended, REFUSED, UsageError, type World } from "../../world.ts";
import { annotations } from "./annotations.ts";
import { typedSender } from "./codegen.ts";
import { typeLines } from "./type-lines.ts";

type SetOptions = { descriptorSet: string; message: string };

/** `types check`, `push` and `show`: the protobuf message that a type's payloads are. */
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

  withSet(types.command("check"))
    .description("say what a push would break, for a pipeline: exit code 1 if anything")
    .addOption(
      new Option("--annotations <host>", "also say it as the code host shows it beside the code").choices(["github"]),
    )
    .action(async (type: string, _, command: Command) => {
      const options = optionsOf<SetOptions & { annotations?: string }>(command);
      const file = readFile(options.descriptorSet);
      const client = connect(world, options).client(TypeService);
      const request = { type, descriptorSet: stripped(file, options.descriptorSet), message: options.message };
      const found = await client.checkPayload(request, { signal: world.signal });
      if (options.json) world.out(jsonLine(CheckPayloadResponseSchema, found));
      else for (const line of found.breaks) world.out(plain(`${line.path}: ${line.description} (${line.rule})`));
      if (options.annotations === "github") for (const line of annotations(found.breaks, file)) world.err(line);
      if (!options.json) world.err(summary(type, found));
      if (found.breaks.length > 0) throw new Ended(REFUSED);
    });

  types
    .command("show")
    .description("show a type, when it was last sent, and its payload contract: fields, and the versions before it")
    .argument("<type>", "key of the type")
    .option("--version <n>", "this version; default: the current one", wholeNumber(1, 2 ** 31 - 1))
    .action(async (type: string, _, command: Command) => {
      const options = optionsOf<{ version?: number }>(command);
      const client = connect(world, options).client(TypeService);
      if (!options.json) {
        const shown = await client.getType({ key: type }, { signal: world.signal });
        for (const line of typeLines(shown)) world.out(line);
        if (shown.type?.payloadVersion === 0) return;
        world.out("");
      }
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

/** `types codegen`: a typed sender for a type with a payload contract. */
export function codegenCommand(types: Command, world: World): void {
  types
    .command("codegen")
    .description("write a typed sender in TypeScript for a type with a payload contract")
    .argument("<type>", "key of the type")
    .requiredOption("--out <file>", "where to write it")
    .option("--import <module>", "where the classes of posthorn.v1 are imported from", "#gen/posthorn/v1")
    .action(async (type: string, _, command: Command) => {
      const options = optionsOf<{ out: string; import: string }>(command);
      const client = connect(world, options).client(TypeService);
      const { contract, descriptorSet } = await client.getPayload({ type }, { signal: world.signal });
      const { message = "", version = 0 } = contract ?? {};
      const desc = registryOf(descriptorSet).getMessage(message);
      if (desc === undefined) throw new Error(`the descriptors lack ${message}`);
      writeFileSync(options.out, typedSender(type, version, desc, options.import));
      const made = { type, version, message, file: options.out };
      world.out(options.json ? JSON.stringify(made) : `${options.out}: send${desc.name}, for version ${version}`);
    });
}

/** A command about a type and a descriptor set. */
export function withSet(command: Command): Command {
  return command
    .argument("<type>", "key of the type")
    .requiredOption("--descriptor-set <file>", "what `buf build -o FILE` or `protoc --include_imports -o FILE` wrote")
    .requiredOption("--message <name>", "full name of the message, such as acme.orders.v1.OrderShipped");
}

const FIX = "Write one with: buf build -o FILE, or: protoc --include_imports --descriptor_set_out=FILE …";

/** The descriptors in a file, without their comments, which can be most of it. */
export function readSet(file: string): Uint8Array {
  return stripped(readFile(file), file);
}

function readFile(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : error}`, FIX);
  }
}

function stripped(bytes: Uint8Array, file: string): Uint8Array {
  try {
    return withoutSourceInfo(bytes);
  } catch {
    throw new UsageError(`${file} is no descriptor set`, FIX);
  }
}

function summary(type: string, { breaks, unchanged, version, reach }: CheckPayloadResponse): string {
  if (unchanged) return `${plain(type)}: nothing to push, it is version ${version}`;
  const { notifications = 0, batched = 0, fanouts = 0, planned = 0, capped = false } = reach ?? {};
  const waiting = notifications + batched + fanouts + planned;
  const looked = `${plural(waiting, "payload")} that ${waiting === 1 ? "waits" : "wait"} looked at${capped ? ", not all" : ""}`;
  const against = version === 0 ? "its first version" : `against version ${version}`;
  return `${plain(type)}: ${plural(breaks.length, "break")} ${against}; ${looked}`;
}

function fieldsOf(descriptorSet: Uint8Array, contract: PayloadContract | undefined): string[][] {
  const fields = registryOf(descriptorSet).getMessage(contract?.message ?? "")?.fields ?? [];
  return fields.map((field) => [`${field.number}`, plain(field.name), plain(typeOf(field))]);
}

function registryOf(descriptorSet: Uint8Array): FileRegistry {
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
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
