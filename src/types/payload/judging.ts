import type { DescMessage, Message, Registry } from "@bufbuild/protobuf";
import { createValidator, type ValidationResult, type Validator } from "@bufbuild/protovalidate";

/** Validates messages of one contract. */
export type Judge = (desc: DescMessage, message: Message) => ValidationResult;

export type Judging = {
  /** `alone`: the contract brings rules of its own, or its rules look into messages by their name. */
  judgeOf(contract: { registry: Registry; alone: boolean }): Judge;
};

/** A validator keeps what it has read of every message type that it was given, so after so many contracts it goes. */
const CONTRACTS_EACH = 256;

/**
 * Contracts share a validator: what one reads of the standard rules before its first validation takes twenty milliseconds.
 */
export function judging(contractsEach = CONTRACTS_EACH): Judging {
  let shared = createValidator();
  let users = new WeakSet<DescMessage>();
  let count = 0;

  const sharedFor = (desc: DescMessage): Validator => {
    if (users.has(desc)) return shared;
    if (++count > contractsEach) {
      shared = createValidator();
      users = new WeakSet();
      count = 1;
    }
    users.add(desc);
    return shared;
  };

  return {
    judgeOf({ registry, alone }) {
      if (!alone) return (desc, message) => sharedFor(desc).validate(desc, message);
      const own = createValidator({ registry });
      return (desc, message) => own.validate(desc, message);
    },
  };
}
