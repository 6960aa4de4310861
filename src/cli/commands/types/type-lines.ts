import { ChannelSchema, PrioritySchema } from "#gen/posthorn/v1/notification_pb.ts";
import { DeliveryMode, type GetTypeResponse } from "#gen/posthorn/v1/type_service_pb.ts";
import { enumWord } from "../../parse.ts";
import { plain, when } from "../../print.ts";
import { deprecationWords } from "../../warnings.ts";

/** What a type is, and whether anybody sends it. */
export function typeLines({ type, lastAcceptHour }: GetTypeResponse): string[] {
  if (type === undefined) return [];
  const { key, displayName, category, defaultPriority, defaultChannels, revision, deprecation, deliveryMode } = type;
  const channels = defaultChannels.map((channel) => enumWord(ChannelSchema, channel)).join(", ");
  return [
    [key, category, enumWord(PrioritySchema, defaultPriority), channels, `revision ${revision}`, plain(displayName)]
      .filter((part) => part !== "")
      .join("  "),
    ...(deliveryMode === DeliveryMode.AT_MOST_ONCE ? ["outside channels are given each at most once"] : []),
    ...(deprecation === undefined ? [] : [deprecationWords(deprecation)]),
    ...(deprecation?.note ? [`  ${plain(deprecation.note)}`] : []),
    lastAcceptHour === undefined
      ? "none was accepted in the last 30 days"
      : `last accepted in the hour from ${when(lastAcceptHour)} on`,
  ];
}
