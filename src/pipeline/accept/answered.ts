import { fromBinary } from "@bufbuild/protobuf";
import { type SendRequest, type SendResponse, SendResponseSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { Fault } from "#src/errors.ts";
import { texts } from "#src/store/arrays.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { Draft } from "./prepare.ts";

/**
 * What those requests were answered that would be refused by now, and were accepted before: their type has had its sunset,
 * is gone or has a stricter payload contract, or their expire_time has passed. Whoever got no answer then repeats the
 * request, and must not take the refusal for one that it had from the first. By their positions. What is not refused costs
 * nothing.
 */
export async function answeredBefore(
  store: Store,
  tenantId: string,
  requests: readonly SendRequest[],
  drafts: readonly (Draft | Fault)[],
  { now, hashOf }: { now: Date; hashOf(request: SendRequest): Uint8Array },
): Promise<ReadonlyMap<number, SendResponse>> {
  const repeats = requests.flatMap((request, index) => {
    return drafts[index] instanceof Fault && request.idempotencyKey !== "" ? [{ request, index }] : [];
  });
  if (repeats.length === 0) return new Map();
  const keys = repeats.map(({ request }) => request.idempotencyKey);
  const known = await store.tenantAtOnce(tenantId, (tx) => findAnswers(tx, tenantId, keys, now));
  return new Map(
    repeats.flatMap(({ request, index }) => {
      const answer = known.get(request.idempotencyKey);
      const isSame = answer !== undefined && Buffer.from(answer.hash).equals(hashOf(request));
      return isSame ? [[index, fromBinary(SendResponseSchema, answer.response)] as const] : [];
    }),
  );
}

type Answer = { key: string; hash: Uint8Array; response: Uint8Array };

async function findAnswers(
  tx: Tx,
  tenantId: string,
  keys: readonly string[],
  now: Date,
): Promise<ReadonlyMap<string, Answer>> {
  const rows = await tx<Answer[]>`
    select key, request_hash as hash, response from idempotency_keys
    where tenant_id = ${tenantId} and key = any(${texts([...new Set(keys)])}::text[]) and expires_at > ${now}`;
  return new Map(rows.map((row) => [row.key, row]));
}
