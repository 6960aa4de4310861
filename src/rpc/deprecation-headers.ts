import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import type { SendBatchResult } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Warning } from "#gen/posthorn/v1/warning_pb.ts";
import type { Call } from "./call.ts";

/** RFC 9745 and RFC 8594. */
export const DEPRECATION_HEADERS = ["deprecation", "sunset"] as const;

/**
 * Says in the metadata of an answer what its warnings say of deprecated types: since when (RFC 9745 §2.1: a date of
 * structured fields, RFC 9651 §3.3.7), and when they are refused (RFC 8594 §3: an HTTP date). Of several the earliest of
 * each, so that the sunset is never before the deprecation (RFC 9745 §4).
 */
export function tellDeprecated(call: Pick<Call, "answerWith">, warnings: readonly Warning[]): void {
  if (warnings.length === 0) return;
  const [deprecation, sunset] = DEPRECATION_HEADERS;
  const since = earliest(warnings.map(({ deprecateTime }) => deprecateTime));
  if (since !== undefined) call.answerWith(deprecation, `@${since.seconds}`);
  const until = earliest(warnings.map(({ sunsetTime }) => sunsetTime));
  if (until !== undefined) call.answerWith(sunset, timestampDate(until).toUTCString());
}

/** The same of all the answers of a batch, which it gives back. */
export function tellingDeprecated(call: Pick<Call, "answerWith">, results: SendBatchResult[]): SendBatchResult[] {
  const warnings = results.flatMap(({ result }) => (result.case === "response" ? result.value.warnings : []));
  tellDeprecated(call, warnings);
  return results;
}

/** To the second, which is all that the headers say. */
function earliest(times: readonly (Timestamp | undefined)[]): Timestamp | undefined {
  let least: Timestamp | undefined;
  for (const time of times)
    if (time !== undefined && (least === undefined || time.seconds < least.seconds)) least = time;
  return least;
}
