// What changes of types do and did: `types diff` before loading a catalogue, `types history` after.
import type { Command } from "commander";
import type { FieldChange } from "#gen/posthorn/v1/change_pb.ts";
import {
  type NotificationType,
  TypeRevisionSchema,
  TypeService,
  type UpdateTypeResponse,
  UpdateTypeResponseSchema,
} from "#gen/posthorn/v1/type_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { columns, jsonLine, plain, plural, when } from "../print.ts";
import type { World } from "../world.ts";

export function typeChanges(types: Command, world: World, readFile: (file: string) => NotificationType[]): void {
  types
    .command("diff")
    .description("show what loading a file would change, without changing anything")
    .argument("<file>", "as for load")
    .option("--exit-code", "exit with 1 if anything would change")
    .action(async (file: string, _, command: Command) => {
      const options = optionsOf<{ exitCode?: boolean }>(command);
      const client = connect(world, options).client(TypeService);
      let changed = 0;
      for (const type of readFile(file)) {
        const would = await client.updateType(
          { type, allowMissing: true, validateOnly: true },
          { signal: world.signal },
        );
        if (would.created || would.changes.length > 0) changed++;
        if (options.json) world.out(jsonLine(UpdateTypeResponseSchema, would));
        else for (const line of changeLines(type.key, would)) world.out(line);
      }
      if (!options.json) world.err(changed === 0 ? "nothing would change" : `${plural(changed, "type")} would change`);
      if (options.exitCode && changed > 0) throw new Error("The types of the tenant differ from those of the file.");
    });

  types
    .command("history")
    .description("show who changed a type, when and how, newest first")
    .argument("<key>", "of the type")
    .action(async (key: string, _, command: Command) => {
      const options = optionsOf(command);
      const client = connect(world, options).client(TypeService);
      for (let pageToken = ""; ; ) {
        const page = await client.listTypeRevisions({ key, pageSize: 100, pageToken }, { signal: world.signal });
        for (const revision of page.revisions) {
          if (options.json) world.out(jsonLine(TypeRevisionSchema, revision));
          else {
            const { type, actor, changes } = revision;
            world.out(`${type?.revision ?? 0}  ${when(type?.updateTime)}  ${plain(actor) || "before this was kept"}`);
            for (const line of differenceLines(changes)) world.out(line);
          }
        }
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
    });
}

/** "+ invoice" for a type that is new, "~ invoice" with its fields for one that changes, nothing for one that does not. */
export function changeLines(key: string, { created, changes }: UpdateTypeResponse): string[] {
  if (created) return [`+ ${key}`];
  return changes.length === 0 ? [] : [`~ ${key}`, ...differenceLines(changes)];
}

function differenceLines(changes: readonly FieldChange[]): string[] {
  const shown = (value: string) => plain(value) || "(not set)";
  return columns(
    changes.map(({ path, before, after }) => [path, `${shown(before)} → ${shown(after)}`]),
    "    ",
  );
}
