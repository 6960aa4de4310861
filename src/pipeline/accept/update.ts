import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { UpdateNotificationRequest } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Clock } from "#src/clock.ts";
import { invalidField, notFound } from "#src/errors.ts";
import type { ShownAnew } from "#src/inbox/show-anew.ts";
import { changeDecided, type DecidedChange } from "#src/notifications/change-decided.ts";
import { encodeContent } from "#src/notifications/encode-content.ts";
import { instantOfLocal } from "#src/notifications/local-time.ts";
import { notOpen } from "#src/notifications/not-open.ts";
import type { NotificationRow } from "#src/notifications/notification.ts";
import { findNotifications, lockNotification, recordScheduled, updateOpen } from "#src/notifications/queries.ts";
import { presentZones } from "#src/preferences/present-zones.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { FindTyped } from "#src/types/payload/contracts.ts";
import type { AcceptDeps, Sender } from "./accept.ts";
import { fenceContracts, type Judged } from "./fence-contracts.ts";
import { checkedTime } from "./prepare.ts";
import { changesContent, changesOf, checkExpiry, localTimeOf } from "./requested-changes.ts";
import { typedContent } from "./typed-content.ts";

export type UpdateDeps = {
  store: Store;
  clock: Clock;
  /** With its payload contract. */
  findType: FindTyped;
  recipientsOf: AcceptDeps["recipientsOf"];
  /** Counter slot of this process's single changes. */
  slot: number;
  /** Tells the user's streams that an entry has changed. Called after the commit. */
  shownAnew(tenantId: string, shown: ShownAnew): void;
  /** Tells them that one waits for another time. Called after the commit. */
  scheduled(tenantId: string, notification: { id: string; userId: string; dueAt: Date }, at: Date): void;
};

/** As changed; of one that was decided, the channels that get it so, the inbox among them, and those that may not. */
export type Updated = { row: NotificationRow; updated: Channel[]; pending: Channel[] };

/** What there is to tell of one that is decided as it is then. */
const UNDECIDED: DecidedChange = { updated: [], pending: [], shown: undefined };

/** Changes a notification of which something waits. Throws as UpdateNotification says. */
export function updating(deps: UpdateDeps) {
  const { store, clock, slot } = deps;

  async function one(tx: Tx, tenantId: string, id: string): Promise<NotificationRow> {
    const [row] = await findNotifications(tx, tenantId, [id]);
    if (row === undefined) throw notFound("notification");
    return row;
  }

  /** As in Send, a time in the past means at once. The recipient of a notification never changes. */
  async function instantFor(tx: Tx, tenantId: string, id: string, local: string): Promise<Date | null> {
    const { userId } = await one(tx, tenantId, id);
    if (local === "") return null;
    const zones = await presentZones(tx, tenantId, [userId]);
    const instant = instantOfLocal(local, zones.get(userId) ?? "UTC");
    const now = clock();
    const time = checkedTime("local_schedule_time", timestampFromDate(instant), now);
    return time > now ? time : null;
  }

  /** New content, judged by what the notification's type says: the type of a notification never changes. */
  async function judge(tenantId: string, { id, content }: UpdateNotificationRequest): Promise<Judged> {
    if (content === undefined) throw invalidField("content", "cannot be taken away");
    const { type, userId } = await store.tenant(tenantId, (tx) => one(tx, tenantId, id));
    const found = await deps.findType(tenantId, type);
    const { content: inNone, contentIn } = typedContent(content, found ?? { key: type });
    const recipients = contentIn && (await deps.recipientsOf(tenantId, [userId]));
    const inTheirs = contentIn?.(recipients?.get(userId)?.language ?? "");
    return { type, contractId: found?.contract?.id, content: encodeContent(inTheirs ?? inNone) };
  }

  return async ({ tenantId, actor }: Sender, request: UpdateNotificationRequest): Promise<Updated> => {
    const { id } = request;
    const changes = changesOf(request, clock());
    const local = localTimeOf(request);
    const judgedBy = changesContent(request) ? await judge(tenantId, request) : undefined;
    if (judgedBy !== undefined) changes.content = judgedBy.content;
    if (local !== undefined && changes.scheduledAt !== undefined) {
      throw invalidField("local_schedule_time", "or schedule_time, not both");
    }
    if (local === undefined && Object.keys(changes).length === 0) {
      throw invalidField("update_mask", "names nothing to change, and nothing is set");
    }
    const { shown, putOff, ...updated } = await store.tenant(tenantId, async (tx) => {
      if (local !== undefined) {
        changes.scheduledAt = await instantFor(tx, tenantId, id, local);
        if (changes.scheduledAt !== null) changes.localTime = local;
      }
      await lockNotification(tx, tenantId, id);
      const before = await one(tx, tenantId, id);
      const now = clock();
      checkExpiry(changes, before, now);
      if (judgedBy !== undefined) await fenceContracts(tx, tenantId, [judgedBy]);
      const isOpen = await updateOpen(tx, tenantId, id, changes, now);
      const changed = isOpen ? UNDECIDED : await changeDecided(tx, tenantId, before, changes, now);
      if (changed === undefined) throw notOpen(before.status);
      const row = await one(tx, tenantId, id);
      const isPutOff = row.status === Status.SCHEDULED && before.scheduledAt?.getTime() !== row.scheduledAt?.getTime();
      if (isPutOff) await recordScheduled(tx, tenantId, row, { actor, now, slot });
      return { row, ...changed, putOff: isPutOff ? { ...row, now } : undefined };
    });
    if (shown !== undefined) deps.shownAnew(tenantId, shown);
    if (putOff?.dueAt != null) deps.scheduled(tenantId, { ...putOff, dueAt: putOff.dueAt }, putOff.now);
    return updated;
  };
}
