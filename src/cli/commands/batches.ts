import type { Command } from "commander";
import {
  type Batch,
  type BatchKind,
  BatchKindSchema,
  BatchSchema,
  BatchService,
  BatchState,
  BatchStateSchema,
} from "#gen/posthorn/v1/batch_service_pb.ts";
import { connect, optionsOf } from "../connection.ts";
import { enumValue, enumWord, enumWords, wholeNumber, word } from "../parse.ts";
import { columns, jsonLine, plain, when } from "../print.ts";
import type { World } from "../world.ts";

export function batchesCommand(program: Command, world: World): void {
  const batches = program
    .command("batches")
    .description("batches and digests: several notifications that come as one")
    .addHelpText(
      "after",
      `
Examples:
  $ posthorn batches list --user ada          # the newest first
  $ posthorn batches list --state open        # what is being collected
  $ posthorn batches get <id>
  $ posthorn batches close <id> --reason "release tonight"`,
    );

  batches
    .command("list")
    .description("list batches and digests, newest first")
    .option("--user <id>", "only of this user", word)
    .option("--type <key>", "only of this type", word)
    .option("--kind <kind>", enumWords(BatchKindSchema).join(" or "), enumValue<BatchKind>(BatchKindSchema))
    .option("--state <state>", enumWords(BatchStateSchema).join(", "), enumValue<BatchState>(BatchStateSchema))
    .option("--limit <n>", "how many (default: 20)", wholeNumber(1, 200))
    .action(async (_, command: Command) => {
      const options = optionsOf<{ user?: string; type?: string; kind?: BatchKind; state?: BatchState; limit?: number }>(
        command,
      );
      const { user: userId = "", type = "", kind = 0, state = 0, limit: pageSize = 20 } = options;
      const { batches: found } = await connect(world, options)
        .client(BatchService)
        .listBatches({ userId, type, kind, state, pageSize }, { signal: world.signal });
      show(world, found, options.json);
    });

  batches
    .command("get")
    .description("one batch; its members: ListNotifications with its id")
    .argument("<id>", "its id")
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf(command);
      const { batch } = await connect(world, options).client(BatchService).getBatch({ id }, { signal: world.signal });
      if (batch !== undefined) show(world, [batch], options.json);
    });

  batches
    .command("close")
    .description("close an open batch or digest now; audited")
    .argument("<id>", "its id")
    .option("--reason <text>", "why, for the audit log")
    .action(async (id: string, _, command: Command) => {
      const options = optionsOf<{ reason?: string }>(command);
      const { batch } = await connect(world, options)
        .client(BatchService)
        .closeBatch({ id, reason: options.reason ?? "" }, { signal: world.signal });
      if (batch !== undefined) show(world, [batch], options.json);
    });
}

function show(world: World, batches: readonly Batch[], json: boolean | undefined): void {
  if (json) {
    for (const batch of batches) world.out(jsonLine(BatchSchema, batch));
    return;
  }
  for (const line of columns(batches.map(rowOf))) world.out(line);
  if (batches.length === 0) world.err("none");
}

function rowOf(batch: Batch): string[] {
  const { id, kind, state, userId, type, size, maxSize, flushTime, closeTime, delivered, failed } = batch;
  const closed = state === BatchState.CLOSED;
  const outcome = closed ? `${delivered} delivered, ${failed} not` : "";
  const at = closed || state === BatchState.DISSOLVED ? closeTime : flushTime;
  return [
    id,
    enumWord(BatchKindSchema, kind),
    // Nobody else joins one that is closed before its time, however many there are.
    state === BatchState.FULL && size < maxSize ? "closing" : enumWord(BatchStateSchema, state),
    plain(userId),
    plain(type),
    closed ? String(size) : `${size} of ${maxSize}`,
    at === undefined ? "" : when(at),
    outcome,
  ];
}
