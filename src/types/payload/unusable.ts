import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/** A stored contract that this server cannot judge by, though the one that it was pushed to could. */
export class UnusableContract extends Fault {
  constructor(type: string, version: number, cause: unknown) {
    super(ErrorReason.PAYLOAD_CONTRACT_UNUSABLE, {
      message:
        `The server cannot use version ${version} of the payload contract of the type "${type}", ` +
        "which was accepted before. CheckPayload with the same descriptors says why. Push a version that it can use (PushPayload).",
      metadata: { type, version: `${version}` },
      cause,
    });
  }
}
