import type { Command } from "commander";
import { PreferencesService, type Subscription, SubscriptionSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { connect, optionsOf, userOf } from "../connection.ts";
import { columns, jsonLine, painter, plain, plural } from "../print.ts";
import { UsageError, type World } from "../world.ts";

type UserOption = { user?: string };
type Changing = UserOption & { reason?: string };
type TargetOptions = { type?: string; topic?: string; category?: string };

/** Stands in the audit log for what an API key changes. */
const REASON = "posthorn subscriptions";

export function subscriptionsCommand(program: Command, world: World): void {
  const subscriptions = program
    .command("subscriptions")
    .description("what a user has subscribed to, and the filters")
    .addHelpText(
      "after",
      `
Without a sub-command it lists.

Examples:
  $ posthorn subscriptions --user ada
  $ posthorn subscriptions add --type job_match --filter 'data.salary >= 50000 && data.city == "Berlin"'
  $ posthorn subscriptions add --topic apollo
  $ posthorn subscriptions change 01938a3e-… 'data.salary >= 60000'
  $ posthorn subscriptions remove 01938a3e-…
  $ posthorn subscriptions remove all          # opts out of everything`,
    );

  withUser(subscriptions.command("list", { isDefault: true }).description("list them, oldest first")).action(
    async (_, command: Command) => {
      const options = optionsOf<UserOption>(command);
      const connection = connect(world, options);
      const client = connection.client(PreferencesService);
      const userId = userOf(connection, options.user);
      const all: Subscription[] = [];
      for (let pageToken = ""; ; ) {
        const page = await client.listSubscriptions({ userId, pageToken }, { signal: world.signal });
        all.push(...page.subscriptions);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      show(all, options.json);
    },
  );

  changing(subscriptions.command("add").description("subscribe to a type, a topic or a category"))
    .option("--type <key>", "to this type")
    .option("--topic <key>", "to this topic, which must be open to users")
    .option("--category <key>", "to the types of this category")
    .option("--filter <cel>", "only what it gives true for", "")
    .action(async (_, command: Command) => {
      const options = optionsOf<Changing & TargetOptions & { filter: string }>(command);
      const connection = connect(world, options);
      const { subscription } = await connection.client(PreferencesService).createSubscription(
        {
          userId: userOf(connection, options.user),
          subscription: { target: targetOf(options), filter: options.filter },
          reason: options.reason ?? REASON,
        },
        { signal: world.signal },
      );
      show(subscription === undefined ? [] : [subscription], options.json);
    });

  changing(subscriptions.command("change").description("replace a filter"))
    .argument("<id>", "the subscription")
    .argument("<cel>", "the new filter; '' for everything")
    .action(async (subscriptionId: string, filter: string, _, command: Command) => {
      const options = optionsOf<Changing>(command);
      const connection = connect(world, options);
      const userId = userOf(connection, options.user);
      const { subscription } = await connection
        .client(PreferencesService)
        .updateSubscription(
          { userId, subscriptionId, filter, reason: options.reason ?? REASON },
          { signal: world.signal },
        );
      show(subscription === undefined ? [] : [subscription], options.json);
    });

  changing(subscriptions.command("remove").description('end one; with "all" opt out of everything'))
    .argument("<id>", 'the subscription, or "all"')
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf<Changing>(command);
      const connection = connect(world, options);
      const client = connection.client(PreferencesService);
      const of = { userId: userOf(connection, options.user), reason: options.reason ?? REASON };
      if (id !== "all") {
        await client.deleteSubscription({ ...of, subscriptionId: id }, { signal: world.signal });
        if (!options.json) world.err("removed");
        return;
      }
      const { $typeName, notifications, ...ended } = await client.unsubscribeAll(of, { signal: world.signal });
      if (options.json) world.out(JSON.stringify({ ...ended, notifications: Number(notifications) }));
      else {
        const counts = [plural(ended.subscriptions, "subscription"), plural(ended.topics, "topic")];
        world.out(`opted out: ${[...counts, plural(Number(notifications), "notification")].join(", ")} ended`);
      }
    });

  function show(found: readonly Subscription[], json: boolean | undefined): void {
    if (json) for (const each of found) world.out(jsonLine(SubscriptionSchema, each));
    else if (found.length === 0) world.out("nothing here");
    else {
      const paint = painter(world);
      const rows = found.map(({ id, target, filter }) => [
        paint("dim", id),
        target.case ?? "",
        plain(target.value ?? ""),
        filter === "" ? "everything" : plain(filter),
      ]);
      for (const line of columns(rows)) world.out(line);
    }
  }
}

function withUser(command: Command): Command {
  return command.option("--user <id>", "whose subscriptions; not needed with a user token");
}

function changing(command: Command): Command {
  return withUser(command).option("--reason <text>", "why, for the audit log, when an API key does it");
}

function targetOf({ type, topic, category }: TargetOptions): { case: "type" | "topic" | "category"; value: string } {
  const given = Object.entries({ type, topic, category }).filter(([, value]) => value !== undefined);
  const [first] = given;
  if (first === undefined || given.length > 1) {
    throw new UsageError("Name one target.", "Give --type, --topic or --category.");
  }
  return { case: first[0] as "type" | "topic" | "category", value: first[1] ?? "" };
}
