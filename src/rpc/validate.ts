import { type DescMessage, getOption, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Violation } from "@bufbuild/protovalidate";
import { message as messageRules } from "#gen/buf/validate/validate_pb.ts";
import type { FieldFault } from "#src/errors.ts";
import { oversize } from "./oversize/oversize.ts";
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
    const tooLarge = oversize(schema, message);
    if (tooLarge !== undefined) return [tooLarge];
    const result = validator.validate(schema, message);
    if (result.kind === "error") throw result.error;
    const broken = result.kind === "valid" ? [] : result.violations;
    return broken.flatMap((violation) => faultsOf(schema, violation));
  };
  return (schema, message) => {
    const fields = judge(schema, message);
    const fault = unrepresentable(schema, message);
    return fault === undefined ? fields : [...fields, fault];
  };
}

/** A rule about a whole request (`give either ids or a filter`) has no path of its own: it names the fields it weighs. */
function faultsOf(schema: DescMessage, { field, message: description, ruleId }: Violation): FieldFault[] {
  const path = pathToString(field);
  if (path !== "") return [{ field: path, description }];
  const rule = getOption(schema, messageRules).cel.find(({ id }) => id === ruleId);
  const weighed = new Set([...(rule?.expression ?? "").matchAll(/\bthis\.(\w+)/g)].map(([, name = ""]) => name));
  return weighed.size === 0 ? [{ field: "", description }] : [...weighed].map((name) => ({ field: name, description }));
}
