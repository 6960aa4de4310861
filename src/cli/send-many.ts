import { readFileSync } from "node:fs";
import { fromJsonString } from "@bufbuild/protobuf";
import { type Client, Code } from "@connectrpc/connect";
import { ErrorReasonSchema } from "#gen/posthorn/v1/error_pb.ts";
import {
  SendBatchResultSchema,
  type SendRequest,
  SendRequestSchema,
  type SendService,
} from "#gen/posthorn/v1/send_service_pb.ts";
import type { Warning } from "#gen/posthorn/v1/warning_pb.ts";
import { jsonLine, plain, plural } from "./print.ts";
import { tellWarnings } from "./warnings.ts";
import { UsageError, type World } from "./world.ts";

/** What one call carries at most: enough to be fast, and below what servers accept (4 MiB, 10,000 users). */
const PER_CALL = { items: 500, bytes: 3 * 2 ** 20, users: 10_000 };

type Line = { line: number; bytes: number; request: SendRequest };

/** Sends a file's requests in calls of several; a refused one is told by its line and does not stop the others. */
export async function sendMany(
  world: World,
  file: string,
  client: Client<typeof SendService>,
  json: boolean,
): Promise<void> {
  const requests = parseLines(await textOf(world, file), file);
  let sent = 0;
  let refused = 0;
  const warnings: Warning[] = [];
  for (const chunk of chunks(requests)) {
    const { results } = await client.sendBatch(
      { items: chunk.map(({ request }) => request) },
      { signal: world.signal },
    );
    for (const [i, each] of results.entries()) {
      if (each.result.case === "response") {
        sent += each.result.value.results.length;
        warnings.push(...each.result.value.warnings);
      } else refused++;
      if (json) world.out(jsonLine(SendBatchResultSchema, each));
      else if (each.result.case === "error") {
        const { reason, message } = each.result.value;
        const name = ErrorReasonSchema.value[reason]?.localName ?? Code[each.result.value.code] ?? "";
        world.err(`line ${chunk[i]?.line}: ${plain(message)} [${name}]`);
      }
    }
  }
  tellWarnings(world, warnings);
  if (!json) world.out(`${plural(sent, "notification")} accepted, ${plural(refused, "line")} refused`);
  if (refused > 0) throw new Error(`${plural(refused, "line")} of ${requests.length} refused; the others were sent.`);
}

async function textOf(world: World, file: string): Promise<string> {
  if (file !== "-") {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      throw new UsageError(`${file} cannot be read: ${error instanceof Error ? error.message : error}`);
    }
  }
  const parts: Buffer[] = [];
  for await (const part of world.stdin) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString();
}

/** Cuts the lines into calls, in their order; a line too large by itself is a call of its own, for the server to refuse. */
function* chunks(lines: readonly Line[]): Generator<Line[]> {
  let chunk: Line[] = [];
  let bytes = 0;
  let users = 0;
  for (const each of lines) {
    const more = each.request.to?.userIds.length ?? 0;
    const full = chunk.length >= PER_CALL.items || bytes + each.bytes > PER_CALL.bytes || users + more > PER_CALL.users;
    if (full && chunk.length > 0) {
      yield chunk;
      chunk = [];
      bytes = 0;
      users = 0;
    }
    chunk.push(each);
    bytes += each.bytes;
    users += more;
  }
  if (chunk.length > 0) yield chunk;
}

function parseLines(text: string, file: string): Line[] {
  const example = '{"to": {"userIds": ["ada"]}, "content": {"title": "Hello"}}';
  return text.split("\n").flatMap((each, i) => {
    if (each.trim() === "") return [];
    try {
      return [{ line: i + 1, bytes: Buffer.byteLength(each), request: fromJsonString(SendRequestSchema, each) }];
    } catch (error) {
      throw new UsageError(
        `${file}, line ${i + 1}: ${error instanceof Error ? error.message : error}`,
        `Write ${example}`,
      );
    }
  });
}
