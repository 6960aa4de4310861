// What would follow a hypothetical Send once it is decided, for people who have to answer its recipient.
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { PreviewedBatch, PreviewSendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import { channelWord, entryLines, short } from "./explanation.ts";
import type { Paint } from "./print.ts";

type Outlook = Pick<PreviewSendResponse, "timeZone" | "limitsUnknown" | "batch" | "handOvers" | "ifUnanswered">;

/** Nothing where nothing follows. */
export function outlookLines(outlook: Outlook, paint: Paint): string[] {
  const { timeZone, limitsUnknown, batch, handOvers, ifUnanswered } = outlook;
  const handedOver = handOvers.map(({ channel, time }) => `to ${channelWord(channel)} at ${short(time, timeZone)}`);
  return [
    ...(batch === undefined ? [] : ["", batchWords(batch, timeZone)]),
    ...(handedOver.length === 0 ? [] : ["", `handed over ${handedOver.join(", ")}`]),
    ...(ifUnanswered.length === 0 ? [] : ["", paint("bold", "if nobody answers")]),
    ...ifUnanswered.flatMap((entry) => entryLines(entry, timeZone, paint)),
    ...(limitsUnknown
      ? ["", paint("yellow", "Redis was away: what the limits and the hourly cap have counted is not known")]
      : []),
  ];
}

function batchWords({ batch, channels, latestFlushTime }: PreviewedBatch, zone: string): string {
  if (batch === undefined) return "";
  const { id, kind, size, maxSize, state, flushTime } = batch;
  const what = kind === BatchKind.DIGEST ? "digest" : "batch";
  const which = id === "" ? `opens a ${what}` : `joins ${what} ${id}`;
  const together = `what is for ${channels.map(channelWord).join(" and ")}`;
  const slides =
    short(latestFlushTime, zone) === short(flushTime, zone) ? "" : `, ${short(latestFlushTime, zone)} at the latest`;
  const full = state === BatchState.FULL ? ", which is full with it" : "";
  return `${which} of ${together}: number ${size} of up to ${maxSize}${full}; closes ${short(flushTime, zone)}${slides}`;
}
