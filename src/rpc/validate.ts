import type { DescMessage, Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault, type FieldFault } from "#src/errors.ts";
import { unrepresentable } from "./representable.ts";
import { surelyValid } from "./surely-valid.ts";

/** The fields of a message that break the contract's rules; none: it is valid. */
export type Violations = (schema: DescMessage, message: Message) => FieldFault[];

/**
 * Checks messages against the rules in the contract (protovalidate). Rules are compiled once per message type, at its
 * first use; a rule that cannot be compiled or run is a defect of the contract and throws.
 */
export function createViolations(): Violations {
  const validator = createValidator();
  const quick = new Map<DescMessage, (message: Message) => boolean>();
  const judge = (schema: DescMessage, message: Message): FieldFault[] => {
    let isSurelyValid = quick.get(schema);
    if (isSurelyValid === undefined) {
      isSurelyValid = surelyValid(schema);
      quick.set(schema, isSurelyValid);
    }
    if (isSurelyValid(message)) return [];
    const result = validator.validate(schema, message);
    if (result.kind === "error") throw result.error;
    const broken = result.kind === "valid" ? [] : result.violations;
    return broken.map(({ field, message: description }) => ({ field: pathToString(field), description }));
  };
  return (schema, message) => {
    const fields = judge(schema, message);
    const fault = unrepresentable(schema, message);
    return fault === undefined ? fields : [...fields, fault];
  };
}

/** INVALID_REQUEST that names every refused field; the message names the first. */
export function invalidRequest(fields: readonly FieldFault[]): Fault {
  const [first] = fields;
  const path = first?.field === "" ? "request" : first?.field;
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : "";
  return new Fault(ErrorReason.INVALID_REQUEST, {
    ...(first === undefined ? {} : { message: `${path}: ${first.description}${more}` }),
    fields: [...fields],
  });
}
