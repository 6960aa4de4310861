import { ConnectError } from "@connectrpc/connect";
import { expect } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";

export type Refusal = {
  code: number;
  reason: string;
  fields: string[];
  metadata: Record<string, string>;
  message: string;
};

/** What a call by a stock client is refused with; fails when it is not refused. */
export async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ConnectError);
  return toRefusal(error as ConnectError);
}

export function toRefusal(error: ConnectError): Refusal {
  const [info] = error.findDetails(ErrorInfoSchema);
  const [bad] = error.findDetails(BadRequestSchema);
  return {
    code: error.code,
    reason: info?.reason ?? "",
    metadata: info?.metadata ?? {},
    fields: bad?.fieldViolations.map(({ field }) => field) ?? [],
    message: error.rawMessage,
  };
}
