import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Server, ServerUnaryCall, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import {
  Health,
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "#gen/grpc/health/v1/health_pb.ts";
import { notFound } from "#src/errors.ts";
import { statusOf } from "./own-errors.ts";

type Answer = { readonly status: ServingStatus };
type Check = ServerUnaryCall<HealthCheckRequest, Answer>;
type Watcher = ServerWritableStream<HealthCheckRequest, Answer>;

/**
 * Serves `grpc.health.v1` of services that are served, or are not, all at once. Not with grpc-health-check: that repeats
 * any name it is asked for, however long, and remembers each that was watched for ever.
 */
export function addHealth(server: Server, services: readonly string[]): { stopServing(): void } {
  // The empty name is the server as a whole.
  const names = new Set(["", ...services]);
  const watchers = new Set<Watcher>();
  let status: ServingStatus = ServingStatus.SERVING;
  // biome-ignore lint/suspicious/noExplicitAny: each handler says what it takes.
  const serve = ({ name, input, output, methodKind }: DescMethod, handler: (call: any, answer: any) => void) =>
    server.register<unknown, Record<string, unknown>>(
      `/${Health.typeName}/${name}`,
      handler,
      (answer) => Buffer.from(toBinary(output, create(output, answer))),
      (bytes) => fromBinary(input, bytes, { readUnknownFields: false }),
      methodKind === "unary" ? "unary" : "serverStream",
    );
  serve(Health.method.check, ({ request }: Check, answer: sendUnaryData<Answer>) =>
    names.has(request.service) ? answer(null, { status }) : answer(statusOf(notFound("service"))),
  );
  serve(Health.method.list, (_, answer: sendUnaryData<{ statuses: Record<string, Answer> }>) =>
    answer(null, { statuses: Object.fromEntries([...names].map((name) => [name, { status }])) }),
  );
  serve(Health.method.watch, (call: Watcher) => {
    const known = names.has(call.request.service);
    call.write({ status: known ? status : ServingStatus.SERVICE_UNKNOWN });
    if (!known) return;
    watchers.add(call);
    // Emitted at every end of a call.
    call.once("cancelled", () => watchers.delete(call));
  });
  return {
    stopServing() {
      status = ServingStatus.NOT_SERVING;
      for (const each of watchers) each.write({ status });
    },
  };
}
