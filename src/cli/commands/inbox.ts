import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type { Command } from "commander";
import {
  type InboxCounts,
  InboxCountsSchema,
  type InboxEntry,
  InboxEntrySchema,
  InboxFilter_View,
  InboxService,
} from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { connect, optionsOf, userOf } from "../connection.ts";
import { instant, several, wholeNumber, word } from "../parse.ts";
import { columns, jsonLine, painter, plain, plural, shorten, when } from "../print.ts";
import { UsageError, type World } from "../world.ts";

type Inbox = Client<typeof InboxService>;
type Target = { userId: string; notificationIds: string[] };
type Change = { changed: number; counts?: InboxCounts | undefined };

export function inboxCommand(program: Command, world: World): void {
  const inbox = program
    .command("inbox")
    .description("a user's inbox: list it, mark read, archive")
    .addHelpText(
      "after",
      `
Without a sub-command it lists. Where <id> is asked for, "all" means everything listed by default.

Examples:
  $ posthorn inbox --user ada --unread
  $ posthorn inbox read 01938a3e-… --user ada
  $ posthorn inbox read all
  $ posthorn inbox --archived --json | jq -r .content.title`,
    );

  withUser(inbox.command("list", { isDefault: true }).description("list entries, newest first"))
    .option("--unread", "only unread ones")
    .option("--archived", "the archive instead")
    .option("--snoozed", "the snoozed ones instead")
    .option("--type <key>", "only of this type; more than once or with commas", several(word))
    .option("--tag <tag>", "only with this tag")
    .option("--grouped", "one entry for each group, the newest")
    .option("--limit <n>", "how many (default: 20)", wholeNumber(1, 1000))
    .action(async (_, command: Command) => {
      const options = optionsOf<ListOptions>(command);
      const connection = connect(world, options);
      const limit = options.limit ?? 20;
      const client = connection.client(InboxService);
      const filter = {
        view: options.archived
          ? InboxFilter_View.ARCHIVED
          : options.snoozed
            ? InboxFilter_View.SNOOZED
            : InboxFilter_View.UNSPECIFIED,
        unreadOnly: options.unread ?? false,
        types: options.type ?? [],
        tag: options.tag ?? "",
      };
      const entries: InboxEntry[] = [];
      let counts: InboxCounts | undefined;
      for (let pageToken = ""; ; ) {
        const pageSize = Math.min(100, limit - entries.length);
        const page = await client.listEntries(
          { userId: userOf(connection, options.user), pageSize, pageToken, filter, grouped: options.grouped ?? false },
          { signal: world.signal },
        );
        entries.push(...page.entries);
        counts = page.counts;
        pageToken = page.nextPageToken;
        if (pageToken === "" || entries.length >= limit) break;
      }
      if (options.json) for (const entry of entries) world.out(jsonLine(InboxEntrySchema, entry));
      else {
        for (const line of entryLines(world, entries)) world.out(line);
        if (counts) world.err(countsLine(counts));
      }
    });

  withUser(inbox.command("counts").description("only the counts")).action(async (_, command: Command) => {
    const options = optionsOf<UserOption>(command);
    const connection = connect(world, options);
    const request = { userId: userOf(connection, options.user) };
    const { counts } = await connection.client(InboxService).getCounts(request, { signal: world.signal });
    if (counts) world.out(options.json ? jsonLine(InboxCountsSchema, counts) : countsLine(counts));
  });

  change("read", "mark entries read", (client, target, all) =>
    all ? client.markAllRead({ userId: target.userId }) : client.markRead(target),
  );
  change("unread", "mark entries unread again", (client, target) => client.markUnread(target));
  change("archive", "move entries to the archive", (client, target) => client.archive(target));
  change("unarchive", "take entries back from the archive", (client, target) => client.unarchive(target));
  change("delete", "delete entries", (client, target, all) =>
    all ? client.clear({ userId: target.userId }) : client.deleteEntries(target),
  );

  withUser(inbox.command("snooze").description("hide entries until a time"))
    .argument("<id...>", "their notifications")
    .requiredOption("--until <time>", "when they come back: +2h, or a time with its zone", instant(world.now))
    .action(async (ids: string[], _, command: Command) => {
      const options = optionsOf<UserOption & { until: Timestamp }>(command);
      const connection = connect(world, options);
      const request = { userId: userOf(connection, options.user), notificationIds: ids, snoozeTime: options.until };
      tell(await connection.client(InboxService).snooze(request, { signal: world.signal }), options.json);
    });

  /** A sub-command that changes the entries named. */
  function change(
    name: string,
    description: string,
    run: (client: Inbox, target: Target, all: boolean) => Promise<Change>,
  ) {
    withUser(inbox.command(name).description(description))
      .argument("<id...>", 'their notifications, or "all"')
      .action(async (ids: string[], _, command: Command) => {
        const options = optionsOf<UserOption>(command);
        const connection = connect(world, options);
        const client = connection.client(InboxService);
        const userId = userOf(connection, options.user);
        const all = ids.length === 1 && ids[0] === "all";
        const takesAll = name === "read" || name === "delete";
        const notificationIds = all && !takesAll ? await everything(client, userId, name) : ids;
        if (notificationIds.length === 0) throw new UsageError("There is nothing to change.");
        tell(await run(client, { userId, notificationIds }, all), options.json);
      });
  }

  function tell({ changed, counts }: Change, json: boolean | undefined): void {
    if (json) world.out(JSON.stringify({ changed, counts: counts && JSON.parse(jsonLine(InboxCountsSchema, counts)) }));
    else world.out(`${plural(changed, "entry", "entries")} changed${counts ? `; ${countsLine(counts)}` : ""}`);
  }
}

type UserOption = { user?: string };
type ListOptions = UserOption & {
  unread?: boolean;
  archived?: boolean;
  snoozed?: boolean;
  type?: string[];
  tag?: string;
  grouped?: boolean;
  limit?: number;
};

function withUser(command: Command): Command {
  return command.option("--user <id>", "whose inbox; not needed with a user token");
}

/** Ids of the newest 500 a change can act on, for methods that have no "all" of their own. */
async function everything(client: Inbox, userId: string, change: string): Promise<string[]> {
  const view = change === "unarchive" ? InboxFilter_View.ARCHIVED : InboxFilter_View.UNSPECIFIED;
  const ids: string[] = [];
  for (let pageToken = ""; ids.length < 500; ) {
    const page = await client.listEntries({ userId, pageSize: 100, pageToken, filter: { view } });
    ids.push(...page.entries.map((entry) => entry.notificationId));
    pageToken = page.nextPageToken;
    if (pageToken === "") break;
  }
  return ids;
}

function entryLines(world: World, entries: readonly InboxEntry[]): string[] {
  const paint = painter(world);
  if (entries.length === 0) return ["nothing here"];
  const rows = entries.map((entry) => {
    const text = [entry.content?.title ?? "", entry.content?.body ?? ""].filter((part) => part !== "").join(" — ");
    const others = (entry.group?.size ?? 1) - 1;
    const more = others > 0 ? paint("dim", ` (+${others})`) : "";
    const urgent = entry.priority >= Priority.HIGH ? paint("red", "! ") : "";
    const shown = shorten(plain(text), Math.max(20, world.columns - 85));
    return [
      entry.readTime ? " " : paint("yellow", "●"),
      when(entry.arriveTime),
      paint("dim", entry.notificationId),
      plain(entry.type),
      urgent + (entry.readTime ? paint("dim", shown) : paint("bold", shown)) + more,
    ];
  });
  return columns(rows);
}

export function countsLine(counts: InboxCounts): string {
  const { unread, unseen, total, archived, snoozed } = counts;
  const more = [archived > 0 ? `${archived} archived` : "", snoozed > 0 ? `${snoozed} snoozed` : ""];
  return [`${unread} unread of ${total}`, `${unseen} unseen`, ...more.filter((part) => part !== "")].join(", ");
}
