import type { DescMethod, Message } from "@bufbuild/protobuf";
import type { Status } from "#gen/google/rpc/status_pb.ts";

/** How a request is sent: the first to the gRPC port, all others to the HTTP port. */
export type Transport =
  | "grpc"
  | "grpc-http"
  | "grpc-web"
  | "grpc-web-json"
  | "connect-proto"
  | "connect-json"
  | "connect-get";

export type Outgoing = {
  method: DescMethod;
  /** One for each message of the request; more than one only where requests stream. */
  bodies: readonly Uint8Array[];
  form: "binary" | "json";
  headers: Readonly<Record<string, string>>;
  /** After which the caller gives up; then the server has hung. */
  patienceMs: number;
};

/** What came back, the same for every transport. */
export type Answer = {
  /** google.rpc.Code, 0 for success; "hung" when none came in time, "broken" when what came is no answer. */
  outcome: number | "hung" | "broken";
  messages: Message[];
  /** The error's message and typed details. */
  status: Status | undefined;
  /** Everything else in words: headers, trailers, what was broken. */
  words: string;
};

export function broken(words: string): Answer {
  return { outcome: "broken", messages: [], status: undefined, words };
}

/** Streams that go on for ever are left after this many messages, or this long after the last one. */
export const ENOUGH_MESSAGES = 4;
export const QUIET_MS = 150;
