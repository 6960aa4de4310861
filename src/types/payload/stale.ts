import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/** Payload contracts changed between the judging and the storing. Who can judges anew; else the caller may try again. */
export class StaleContract extends Fault {
  readonly types: readonly string[];
  constructor(types: readonly string[]) {
    super(ErrorReason.DEPENDENCY_UNAVAILABLE, {
      message: "The payload contract of the type has changed at this moment. Retry.",
      retryAfterMs: 100,
    });
    this.types = types;
  }
}
