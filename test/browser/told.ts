import type { JsonValue } from "@bufbuild/protobuf";

/** What the test asks of its page. */
export type Asked = {
  baseUrl: string;
  token: string;
  protocol: "connect json" | "connect binary" | "grpc-web";
};

/** What the page tells the test: an event of the stream, how a stream ended, or what happened to the page. */
export type Told =
  | { kind: "notification"; sequence: number; title: string; replayed: boolean }
  | { kind: "cut"; code: number; message: string }
  | { kind: string };

/** What came of a unary call. */
export type Counted = { counts: JsonValue } | { code: number; message: string; reason: string | undefined };
