import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";

/** gRPC calls whose bytes are the caller's own. */

export function beginCall(session: ClientHttp2Session, path: string, headers: object = {}): ClientHttp2Stream {
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  stream.on("error", () => undefined);
  return stream;
}

/** What the caller is told at the end, by the status and by its details; `status` is NaN when the stream is just closed. */
export async function endOf(stream: ClientHttp2Stream) {
  const seen: Record<string, unknown> = {};
  stream.resume();
  await new Promise<void>((resolve) => {
    const note = (headers: object) => "grpc-status" in Object.assign(seen, headers) && resolve();
    stream.on("response", note);
    stream.on("trailers", note);
    stream.on("close", resolve);
  });
  const details = seen["grpc-status-details-bin"];
  const status = typeof details === "string" ? fromBinary(StatusSchema, Buffer.from(details, "base64")) : undefined;
  const violations = status?.details.flatMap((each) => anyUnpack(each, BadRequestSchema)?.fieldViolations ?? []);
  return {
    status: Number(seen["grpc-status"]),
    typed: status?.code ?? 0,
    message: String(seen["grpc-message"]),
    fields: violations?.map(({ field }) => field),
  };
}
