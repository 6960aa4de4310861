import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { ImportUsersResponseSchema, UserSchema, UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { targetUser } from "#src/rpc/access.ts";
import { type Service, service } from "#src/rpc/call.ts";
import { maskPaths } from "#src/rpc/field-mask.ts";
import { keysetPage } from "#src/store/keyset.ts";
import type { PageTokens } from "#src/store/page-token.ts";
import { type DeleteUserDeps, deleteUser } from "#src/users/delete.ts";
import { importChunk } from "#src/users/import.ts";
import { findUser, lockUser, pageUsers, replaceUsers, upsertUsers } from "#src/users/queries.ts";
import { changingProfiles, followProfiles, type ProfileRulesDeps } from "#src/users/rules.ts";
import { checkProfile, profileOf, toUser, withFields } from "#src/users/user.ts";

export type UserServiceDeps = DeleteUserDeps &
  ProfileRulesDeps & { pageTokens: PageTokens; clock: Clock; newId: NewId };

const DEFAULT_PAGE = 50;

export function userService(deps: UserServiceDeps): Service {
  const { store, pageTokens, clock, newId } = deps;
  const validator = createValidator();
  return service(UserService, {
    async upsertUser(request, call) {
      const profile = profileOf(request.user ?? create(UserSchema));
      checkProfile("user", profile);
      const now = clock();
      const { stored, tell } = await changingProfiles(deps, call.tenantId, [profile.id], () =>
        store.tenantDb(call.tenantId, async (db) => {
          const stored = await upsertUsers(db, call.tenantId, [profile], now);
          return { stored, tell: await followProfiles(deps, db, call.tenantId, stored, now) };
        }),
      );
      tell();
      const { created, createdAt } = stored.get(profile.id) ?? { created: false, createdAt: now };
      return { user: toUser({ ...profile, createdAt, updatedAt: now }), created };
    },

    async updateUser(request, call) {
      const changes = request.user ?? create(UserSchema);
      const paths = maskPaths(request.updateMask, UserSchema, changes);
      const now = clock();
      const { user, tell } = await changingProfiles(deps, call.tenantId, [changes.id], () =>
        store.tenantDb(call.tenantId, async (db) => {
          const stored = await lockUser(db, call.tenantId, changes.id);
          if (stored === undefined) throw notFound("user");
          const changed = withFields(stored, profileOf(changes), paths);
          if (changed === stored) return { user: toUser(stored), tell: () => undefined };
          checkProfile("user", changed);
          const replaced = await replaceUsers(db, call.tenantId, [changed], now);
          const tell = await followProfiles(deps, db, call.tenantId, replaced, now);
          return { user: toUser({ ...changed, updatedAt: now }), tell };
        }),
      );
      tell();
      return { user };
    },

    async getUser(request, call) {
      const id = targetUser({ userId: request.id }, call);
      const user = await store.tenantDb(call.tenantId, (db) => findUser(db, call.tenantId, id));
      if (user === undefined) throw notFound("user");
      return { user: toUser(user) };
    },

    async listUsers(request, call) {
      const { items, nextPageToken } = await keysetPage(pageTokens, {
        query: [call.tenantId, "ListUsers", request.role],
        pageToken: request.pageToken,
        pageSize: request.pageSize || DEFAULT_PAGE,
        read: (after, limit) =>
          store.tenantDb(call.tenantId, (db) => pageUsers(db, call.tenantId, request.role, after, limit)),
        keyOf: (user) => user.id,
      });
      return { users: items.map(toUser), nextPageToken };
    },

    async deleteUser(request, call) {
      const { actor, signal } = call;
      await deleteUser(deps, call.tenantId, request.id, { auditId: newId(), newId, actor, now: clock(), signal });
      return {};
    },

    async *importUsers(requests, call) {
      let created = 0;
      let updated = 0;
      let refused = 0;
      for await (const { users } of requests) {
        const result = await importChunk(deps, validator, call.tenantId, users, clock());
        created += result.created;
        updated += result.updated;
        refused += result.errors.length;
        yield create(ImportUsersResponseSchema, {
          created: BigInt(created),
          updated: BigInt(updated),
          refused: BigInt(refused),
          errors: result.errors,
        });
      }
    },
  });
}
