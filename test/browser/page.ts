// Runs in the browser, bundled by site.ts: a page that follows its user's stream with Connect-Web, and tells the test
// everything that comes. It never leaves anything out, so that a test sees what comes twice.
import { toJson } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { GetCountsResponseSchema, InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Asked, Counted, Told } from "./told.ts";

// The little of the browser that is used here: its whole library of types would hide mistakes in the rest of the program.
declare function tell(json: string): unknown;
declare const document: {
  readonly visibilityState: string;
  addEventListener(type: string, listener: () => void): void;
};
declare function addEventListener(type: string, listener: () => void, options?: { once: boolean }): void;

const PAUSE_MS = 200;

function say(told: Told): void {
  tell(JSON.stringify(told));
}

function transportTo({ baseUrl, protocol }: Asked) {
  if (protocol === "grpc-web") return createGrpcWebTransport({ baseUrl });
  return createConnectTransport({ baseUrl, useBinaryFormat: protocol === "connect binary" });
}

/** Never returns: whatever ends the stream, it goes on from the last cursor. */
async function follow(asked: Asked): Promise<never> {
  const streams = createClient(StreamService, transportTo(asked));
  const headers = { authorization: `Bearer ${asked.token}` };
  let cursor = "";
  for (;;) {
    try {
      for await (const { event } of streams.subscribe({ cursor }, { headers })) {
        if (event.value && "cursor" in event.value) cursor = event.value.cursor || cursor;
        if (event.case !== "notification") say({ kind: event.case ?? "unknown" });
        else {
          const { entry, replayed } = event.value;
          say({
            kind: "notification",
            sequence: Number(entry?.sequence),
            title: entry?.content?.title ?? "",
            replayed,
          });
        }
      }
      say({ kind: "ended" });
    } catch (error) {
      const { code, rawMessage } = ConnectError.from(error);
      say({ kind: "cut", code, message: rawMessage });
    }
    await Promise.race([
      new Promise((resolve) => setTimeout(resolve, PAUSE_MS)),
      new Promise<void>((resolve) => addEventListener("online", resolve, { once: true })),
    ]);
  }
}

/** One unary call and all that a page can see of its answer. */
async function count(asked: Asked): Promise<Counted> {
  try {
    const inbox = createClient(InboxService, transportTo(asked));
    const answer = await inbox.getCounts({}, { headers: { authorization: `Bearer ${asked.token}` } });
    return { counts: toJson(GetCountsResponseSchema, answer) };
  } catch (error) {
    const problem = ConnectError.from(error);
    const [info] = problem.findDetails(ErrorInfoSchema);
    return { code: problem.code, message: problem.rawMessage, reason: info?.reason };
  }
}

document.addEventListener("visibilitychange", () => say({ kind: `page ${document.visibilityState}` }));
// The last that runs before nothing does any more (Page Lifecycle).
document.addEventListener("freeze", () => say({ kind: "page frozen" }));
addEventListener("online", () => say({ kind: "page online" }));
addEventListener("offline", () => say({ kind: "page offline" }));
Object.assign(globalThis, { follow, count });
