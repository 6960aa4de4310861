import { readFileSync } from "node:fs";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { ChannelSchema, PrioritySchema } from "#gen/posthorn/v1/notification_pb.ts";
import {
  DeliveryMode,
  type NotificationType,
  NotificationTypeSchema,
  type Preset,
  PresetSchema,
  TypeService,
} from "#gen/posthorn/v1/type_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumValue, enumWord, enumWords } from "../parse.ts";
import { columns, jsonLine, plain, plural } from "../print.ts";
import { deprecationWords } from "../warnings.ts";
import { UsageError, type World } from "../world.ts";
import { changeLines, typeChanges } from "./type-changes.ts";
import { codegenCommand, payloadCommands } from "./types/payload.ts";

const presets = enumWords(PresetSchema);

export function typesCommand(program: Command, world: World): void {
  const types = program
    .command("types")
    .description("the catalogue of notification types")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn types load jobs                  # a ready-made catalogue: ${presets.join(", ")}
  $ posthorn types load ./types.json          # [{"key": "invoice", "category": "billing"}, …]
  $ posthorn types list --category tasks
  $ posthorn types list --deprecated          # those on their way out, and since when or until when
  $ posthorn types diff ./types.json          # what loading it would change; --exit-code for pipelines
  $ posthorn types history invoice            # who changed what, and when
  $ posthorn types check invoice --descriptor-set api.binpb --message acme.billing.v1.Invoice
  $ posthorn types push invoice --descriptor-set api.binpb --message acme.billing.v1.Invoice
  $ posthorn types show invoice               # its payload contract
  $ posthorn types codegen invoice --out src/send-invoice.ts`,
    );

  payloadCommands(types, world);
  codegenCommand(types, world);

  types
    .command("load")
    .description("load a preset, or create and update types from a file")
    .argument("<preset|file>", `${presets.join(", ")}; or a JSON file with an array of types as in type_service.proto`)
    .action(async (source: string, _, command: Command) => {
      const options = optionsOf(command);
      const loaded = presets.includes(source) ? undefined : readTypes(source);
      const client = connect(world, options).client(TypeService);
      if (loaded === undefined) {
        const preset = enumValue<Preset>(PresetSchema)(source);
        const { types: result, created } = await client.loadPreset({ preset }, { signal: world.signal });
        show(result, options.json);
        if (!options.json) world.err(`${plural(created, "type")} created, ${result.length - created} were there`);
        return;
      }
      const result: NotificationType[] = [];
      for (const type of loaded) {
        const updated = await client.updateType({ type, allowMissing: true }, { signal: world.signal });
        if (updated.type) result.push(updated.type);
        if (!options.json) for (const line of changeLines(type.key, updated)) world.err(line);
      }
      show(result, options.json);
    });

  types
    .command("list")
    .description("list the types by key")
    .option("--category <key>", "only of this category")
    .option("--deprecated", "only those that are deprecated")
    .option("--no-deprecated", "only those that are not")
    .action(async (_, command: Command) => {
      const options = optionsOf<{ category?: string; deprecated?: boolean }>(command);
      const filter = {
        category: options.category ?? "",
        ...(options.deprecated !== undefined && { deprecated: options.deprecated }),
      };
      const client = connect(world, options).client(TypeService);
      const all: NotificationType[] = [];
      for (let pageToken = ""; ; ) {
        const page = await client.listTypes({ pageSize: 200, pageToken, ...filter }, { signal: world.signal });
        all.push(...page.types);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      show(all, options.json);
    });

  typeChanges(types, world, readTypes);

  function show(found: NotificationType[], json: boolean | undefined): void {
    if (json) for (const type of found) world.out(jsonLine(NotificationTypeSchema, type));
    else
      for (const line of columns(
        found.map((type) => [
          type.key,
          type.category,
          enumWord(PrioritySchema, type.defaultPriority),
          type.defaultChannels.map((channel) => enumWord(ChannelSchema, channel)).join(", "),
          `value ${type.value}, urgency ${type.urgency}`,
          type.deliveryMode === DeliveryMode.AT_MOST_ONCE ? "at most once" : "",
          type.deprecation === undefined ? plain(type.displayName) : deprecationWords(type.deprecation),
        ]),
      ))
        world.out(line);
  }
}

function readTypes(file: string): NotificationType[] {
  const fix = `Name a preset (${presets.join(", ")}) or a JSON file.`;
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : error}`, fix);
  }
  try {
    const value = JSON.parse(text) as JsonValue;
    const list = Array.isArray(value) ? value : [value];
    return list.map((each) => fromJson(NotificationTypeSchema, each));
  } catch (error) {
    throw new UsageError(
      `${file}: ${error instanceof Error ? error.message : error}`,
      'Write [{"key": "invoice", …}, …].',
    );
  }
}
