import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { type Command, Option } from "commander";
import {
  AdminService,
  type ApiKey,
  ApiKeySchema,
  CreateApiKeyResponseSchema,
  RotateApiKeyResponseSchema,
  type Scope,
  ScopeSchema,
} from "#gen/posthorn/v1/admin_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { duration, enumValue, enumWord, enumWords, instant, several } from "../parse.ts";
import { columns, jsonLine, plain, plural, when } from "../print.ts";
import { UsageError, type World } from "../world.ts";

const oneScope = enumValue<Scope>(ScopeSchema);
const everyScope = (): Scope[] =>
  ScopeSchema.values.map((value) => value.number).filter((number) => number !== 0) as Scope[];

export function keyCommand(program: Command, world: World): void {
  const key = program
    .command("key")
    .description("create, list, rotate and revoke API keys")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn key create "backend" --scope send --scope notifications-read
  $ posthorn key create "everything" --scope all --tenant <id>     # as the operator
  $ posthorn key rotate <id> --overlap 1h`,
    );

  key
    .command("create")
    .description("create an API key; its secret is shown only now")
    .argument("<name>", "for people")
    .addOption(
      new Option(
        "--scope <scope>",
        `what it may do, more than once or with commas: all, ${enumWords(ScopeSchema).join(", ")}`,
      )
        .argParser((text: string, previous: Scope[] | undefined) =>
          text === "all" ? everyScope() : several(oneScope)(text, previous),
        )
        .makeOptionMandatory(),
    )
    .option("--expires <time>", "when it ends: +90d, or a time with its zone (default: never)", instant(world.now))
    .action(async (displayName: string, _, command: Command) => {
      const options = optionsOf<{ scope: Scope[]; expires?: Timestamp }>(command);
      const scopes = [...new Set(options.scope)];
      const admin = connect(world, options).client(AdminService);
      const created = await admin.createApiKey(
        { displayName, scopes, expireTime: options.expires },
        { signal: world.signal },
      );
      if (options.json) return world.out(jsonLine(CreateApiKeyResponseSchema, created));
      world.out(created.secret);
      world.err(`key ${created.apiKey?.id} with ${plural(scopes.length, "scope")}; the secret is not shown again`);
    });

  key
    .command("list")
    .description("list API keys, oldest first, without secrets")
    .action(async (_, command: Command) => {
      const options = optionsOf(command);
      const admin = connect(world, options).client(AdminService);
      const all: ApiKey[] = [];
      for (let pageToken = ""; ; ) {
        const page = await admin.listApiKeys({ pageSize: 200, pageToken }, { signal: world.signal });
        all.push(...page.apiKeys);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      if (options.json) for (const each of all) world.out(jsonLine(ApiKeySchema, each));
      else for (const line of columns(all.map(row))) world.out(line);
    });

  key
    .command("rotate")
    .description("give a key a new secret")
    .argument("<id>", "which key")
    .option("--overlap <duration>", "how long the old secret still works, up to 7d (default: not at all)", duration)
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf<{ overlap?: Duration }>(command);
      const admin = connect(world, options).client(AdminService);
      const rotated = await admin.rotateApiKey({ id, overlap: options.overlap }, { signal: world.signal });
      if (options.json) return world.out(jsonLine(RotateApiKeyResponseSchema, rotated));
      world.out(rotated.secret);
      world.err("the new secret is not shown again");
    });

  key
    .command("revoke")
    .description("refuse a key from now on, on every server within a second")
    .argument("<id>", "which key")
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf(command);
      const { apiKey } = await connect(world, options)
        .client(AdminService)
        .revokeApiKey({ id }, { signal: world.signal });
      if (!apiKey) throw new UsageError(`There is no key ${id}.`);
      if (options.json) world.out(jsonLine(ApiKeySchema, apiKey));
      else for (const line of columns([row(apiKey)])) world.out(line);
    });
}

function row(key: ApiKey): string[] {
  const scopes =
    key.scopes.length === everyScope().length ? ["all"] : key.scopes.map((scope) => enumWord(ScopeSchema, scope));
  const end = key.revokeTime
    ? `revoked ${when(key.revokeTime)}`
    : key.expireTime
      ? `until ${when(key.expireTime)}`
      : "no end";
  return [key.id, `${key.prefix}…`, end, plain(key.displayName), scopes.join(", ")];
}
