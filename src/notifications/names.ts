import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";

/** The contract's numbers in words, for logs, spans and labels: `in_app`, `delivered`, `quiet_hours`. */
export const channelName = namesOf(Channel);
export const statusName = namesOf(Status);
export const reasonName = namesOf(Reason);

function namesOf(values: Readonly<Record<string, number>>): (value: number) => string {
  const names = new Map(Object.entries(values).map(([name, value]) => [value, name.toLowerCase()]));
  return (value) => names.get(value) ?? "unknown";
}
