import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { shipped } from "../../support/descriptors.ts";
import type { Clients } from "../../support/platform.ts";
import { type AllCanaries, type Call, contentOf } from "./exercise.ts";

/** The type whose payloads are `acme.Shipped`. */
const TYPED = "parcel";
const SHIPPED = "acme.Shipped";
const FIELDS = "string order = 1 [(buf.validate.field).string.min_len = 3]; map<string, string> notes = 2;";
/** Versions that would not let through what waits, and say what is in it. */
const TALKATIVE = [
  `string order = 1 [(buf.validate.field).cel = {id: "own", expression: "this"}]; map<string, string> notes = 2;`,
  "string order = 1; map<string, string> notes = 2 [(buf.validate.field).map.values.string.max_len = 3];",
  `option (buf.validate.message).cel = {id: "own", expression: "this.order"}; string order = 1; map<string, string> notes = 2;`,
].map((body) => shipped(body));

/** Typed payloads, sent and refused, and versions of their contract that those that wait would break. */
export function typedCalls({ types, send, schedules }: Clients, canary: AllCanaries, userId: string): Call[] {
  const to = { userIds: [userId] };
  const title = "On its way";
  const data = { order: canary.payload, notes: { [canary.payloadKey]: canary.payload } };
  const sent = (payload: object, more: object = {}) =>
    send.send({ to, type: TYPED, content: { title, ...payload }, ...more });
  const field = (bytes: Buffer) => Buffer.concat([Buffer.from([0x0a, bytes.length]), bytes]);
  const packed = (value: Uint8Array, name = SHIPPED) => ({
    payload: { typeUrl: `type.googleapis.com/${name}`, value },
  });
  const order = field(Buffer.from(canary.payload));
  const later = timestampFromMs(Date.now() + 3_600_000);
  const push = { type: TYPED, message: SHIPPED };
  return [
    () => types.createType({ type: { key: TYPED } }),
    () => types.pushPayload({ ...push, descriptorSet: shipped(FIELDS) }),
    () => sent({ data }),
    () => sent(packed(order), { waitForDecision: { seconds: 1n } }),
    () => sent({ data }, { schedule: { case: "scheduleTime", value: later } }),
    () => send.previewSend({ request: { to, type: TYPED, content: { title, data } } }),
    () =>
      schedules.createSchedule({
        schedule: {
          key: "typed",
          request: { to, type: TYPED, content: { title, data } },
          recurrence: "FREQ=DAILY",
          localStartTime: "2026-01-01T09:00",
        },
      }),
    ...[
      { data: { ...data, order: canary.payload.slice(0, 2) } },
      { data: { ...data, order: [canary.payload] } },
      { data: { ...data, notes: canary.payload } },
      { data: { ...data, notes: { [canary.payloadKey]: [canary.payload] } } },
      { data: { ...data, [canary.payloadField]: canary.payload } },
      { data: [canary.payload] as never },
      packed(order, `acme.${canary.payloadType}`),
      packed(order.subarray(0, -1)),
      packed(Buffer.concat([field(Buffer.from("ab")), Buffer.from([0x12, 3, 0x0a, 9, 0x41]), order])),
      { ...packed(order), data },
      { body: canary.payload },
    ].flatMap((wrong): Call[] => [
      () => sent(wrong),
      () => send.previewSend({ request: { to, type: TYPED, content: { title, ...wrong } } }),
      async () => {
        const { results } = await send.sendBatch({ items: [{ to, type: TYPED, content: { title, ...wrong } }] });
        const said = results.flatMap(({ result: { case: kind, value } }) =>
          kind === "error"
            ? [value.message, ...value.fieldViolations.map(({ field, description }) => `${field}: ${description}`)]
            : [],
        );
        throw new ConnectError(said.join("\n"));
      },
    ]),
    ...TALKATIVE.flatMap((descriptorSet): Call[] => [
      () => types.pushPayload({ ...push, descriptorSet }),
      async () => {
        const { breaks } = await types.checkPayload({ ...push, descriptorSet });
        throw new ConnectError(breaks.map(({ path, description }) => `${path} ${description}`).join("\n"));
      },
    ]),
  ];
}

/** What wishes are told in, and refused for; and what asks for what was decided by them. */
export function filterCalls({ preferences, send, admin }: Clients, canary: AllCanaries, userId: string): Call[] {
  const { reason, literal } = canary;
  const target = { case: "topic", value: "news" } as const;
  const filters = [
    ...[`data.city == "${literal}"`, `data.city > "${literal}" && data.x.y == 1`, `"${literal}" in tags`],
    ...[`data.city == "${literal}`, `"${literal}"`, `data.city == b"${literal}"`, `data.city == "${literal}" ==`],
    ...[`["${literal}"].map(x, x)`, `["${literal}", data.x]`, `{"${literal}": 1} == data`, `data["${literal}"] = 1`],
  ];
  return [
    ...filters.map(
      (filter) => () => preferences.createSubscription({ userId, subscription: { target, filter }, reason }),
    ),
    async () => {
      const { subscriptions } = await preferences.listSubscriptions({ userId });
      for (const { id } of subscriptions)
        await preferences.updateSubscription({ userId, subscriptionId: id, filter: `"${literal}" in`, reason });
    },
    () => send.send({ to: { topics: ["news"] }, content: { title: "t", data: { city: 1 } } }),
    async () => {
      const { notifications } = await send.listNotifications({ filter: { userId } });
      for (const { id } of notifications.slice(0, 5)) await send.explainNotification({ id });
    },
    () => send.explainNotification({ id: canary.wrongField }),
    () => send.previewSend({ request: { to: { userIds: [userId] }, content: contentOf(canary), tags: [canary.tag] } }),
    () => send.previewSend({ request: { to: { userIds: [userId] }, content: { title: canary.title.repeat(20) } } }),
    () => admin.listAuditEntries({ pageToken: canary.pageToken }),
  ];
}
