import { create } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import type { Validator } from "@bufbuild/protovalidate";
import { ErrorReason, type ItemError, ItemErrorSchema } from "#gen/posthorn/v1/error_pb.ts";
import { type ImportError, ImportErrorSchema, type User, UserSchema } from "#gen/posthorn/v1/user_service_pb.ts";
import { ERRORS, type FieldFault } from "#src/errors.ts";
import type { Store } from "#src/store/store.ts";
import { upsertUsers } from "./queries.ts";
import { changingProfiles, followProfiles, type ProfileRulesDeps } from "./rules.ts";
import { type Profile, profileFaults, profileOf } from "./user.ts";

/** A refused item is echoed and explained in bounded space, whatever it holds. */
const MAX_ECHO = 128;
const MAX_VIOLATIONS = 20;

export type ChunkResult = {
  created: number;
  updated: number;
  errors: ImportError[];
};

/**
 * Stores the good users of a chunk in one transaction and tells about the others. A user who is in the chunk twice is
 * counted twice and ends as the last says.
 */
export async function importChunk(
  deps: ProfileRulesDeps & { store: Store },
  validator: Validator,
  tenantId: string,
  chunk: readonly User[],
  now: Date,
): Promise<ChunkResult> {
  const good = new Map<string, Profile>();
  const errors: ImportError[] = [];
  for (const [index, user] of chunk.entries()) {
    const faults = userFaults(validator, user);
    if (faults.length === 0) good.set(user.id, profileOf(user));
    else errors.push(create(ImportErrorSchema, { index, userId: echo(user.id), error: itemError(faults) }));
  }
  const created = good.size === 0 ? 0 : await store(deps, tenantId, [...good.values()], now);
  return { created, updated: chunk.length - errors.length - created, errors };
}

/** Answers how many were created. */
async function store(
  deps: ProfileRulesDeps & { store: Store },
  tenantId: string,
  profiles: readonly Profile[],
  now: Date,
): Promise<number> {
  const ids = profiles.map(({ id }) => id);
  const { created, tell } = await changingProfiles(deps, tenantId, ids, () =>
    deps.store.tenantDb(tenantId, async (db) => {
      const stored = await upsertUsers(db, tenantId, profiles, now);
      const tell = await followProfiles(deps, db, tenantId, stored, now);
      return { created: [...stored.values()].filter((each) => each.created).length, tell };
    }),
  );
  tell();
  return created;
}

/** Everything that is wrong with a user, by the contract's rules and ours, with paths relative to the user. */
function userFaults(validator: Validator, user: User): FieldFault[] {
  const result = validator.validate(UserSchema, user);
  switch (result.kind) {
    case "valid":
      return profileFaults(profileOf(user));
    case "invalid":
      return result.violations.map(({ field, message }) => ({ field: pathToString(field), description: message }));
    case "error":
      throw result.error;
  }
}

function itemError(faults: FieldFault[]): ItemError {
  const [first] = faults;
  const { code, message } = ERRORS[ErrorReason.INVALID_REQUEST];
  return create(ItemErrorSchema, {
    code,
    reason: ErrorReason.INVALID_REQUEST,
    message: first === undefined ? message : `${first.field}: ${first.description}`,
    fieldViolations: faults.slice(0, MAX_VIOLATIONS),
  });
}

function echo(text: string): string {
  return text.length <= MAX_ECHO ? text : text.slice(0, MAX_ECHO).toWellFormed();
}
