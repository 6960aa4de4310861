import { expect } from "vitest";
import type { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/** The fault a call is refused with; fails when it is not refused, or by something else. */
export async function faultOf(call: Promise<unknown>): Promise<{ reason: ErrorReason; fields: string[] }> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(Fault);
  const { reason, fields } = error as Fault;
  return { reason, fields: fields.map(({ field }) => field) };
}
