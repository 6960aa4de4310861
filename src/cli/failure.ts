// What a person, or with --json a program, is told when a command fails, and with which exit code it ends.
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { plain, plural } from "./print.ts";
import { REFUSED, UNREACHABLE, USAGE, UsageError } from "./world.ts";

export type Failure = {
  exitCode: number;
  /** Of google.rpc.Code, such as "INVALID_ARGUMENT"; "" when no call was made. */
  code: string;
  /** Of posthorn.v1.ErrorReason, without its prefix; "" when the server gave none. */
  reason: string;
  message: string;
  fields: { field: string; description: string }[];
  metadata: Record<string, string>;
  retryAfterMs?: number;
  /** What to do about it. */
  hints: string[];
};

/** @param server where the command was connecting to, if anywhere. */
export function failureOf(error: unknown, server?: string): Failure {
  if (error instanceof UsageError) return local(USAGE, error.message);
  if (!(error instanceof ConnectError))
    return isFailedQuery(error) ? databaseRefused(error) : local(REFUSED, told(error));
  const [info] = error.findDetails(ErrorInfoSchema);
  const fields = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
  const quota = error.findDetails(QuotaFailureSchema).flatMap((detail) => detail.violations);
  const [retry] = error.findDetails(RetryInfoSchema);
  const delay = retry?.retryDelay;
  const unreachable = error.code === Code.Unavailable || error.code === Code.DeadlineExceeded;
  const noAnswer = unreachable && info === undefined;
  const failure: Failure = {
    exitCode: unreachable ? UNREACHABLE : REFUSED,
    code: codeName(error.code),
    reason: info?.reason ?? "",
    message: noAnswer && server !== undefined ? `Nobody answers at ${server} (${error.rawMessage}).` : error.rawMessage,
    fields: fields.map(({ field, description }) => ({ field, description })),
    metadata: info?.metadata ?? {},
    ...(delay === undefined ? {} : { retryAfterMs: Number(delay.seconds) * 1000 + Math.round(delay.nanos / 1e6) }),
    hints: [],
  };
  return {
    ...failure,
    hints: [
      ...quota.map(({ subject, description }) => `${subject}: ${description}`),
      ...(noAnswer ? ["Is it running? `npm start` starts one here; --server or POSTHORN_SERVER names another."] : []),
      ...hintsOf(failure),
    ],
  };
}

export function failureLines(failure: Failure): string[] {
  const { message, reason, fields, hints } = failure;
  // A refusal about one field says it all in its message.
  const listed = fields.length === 1 && message.startsWith(`${fields[0]?.field}:`) ? [] : fields;
  return [
    `error: ${plainLines(message)}${reason === "" ? "" : ` [${reason}]`}`,
    ...listed.map(({ field, description }) => `  ${plain(field)}: ${plain(description)}${optionFor(field)}`),
    ...(listed.length === 0 ? fields.map(({ field }) => optionFor(field)).filter((hint) => hint !== "") : []).map(
      (hint) => `  ${hint.trim()}`,
    ),
    ...hints.map((hint) => `  ${plain(hint)}`),
  ];
}

export function failureJson({ exitCode: _, ...error }: Failure): string {
  return JSON.stringify({ error });
}

/** Drizzle's error, whose message is the whole statement with its values. */
function isFailedQuery(error: unknown): error is Error & { query: string } {
  return error instanceof Error && "query" in error && error.cause !== undefined;
}

function databaseRefused(error: Error): Failure {
  const hints = ["Is its data of another version? In development, remove .data to begin anew."];
  return { ...local(REFUSED, `The database refused: ${told(error.cause)}.`), hints };
}

function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function local(exitCode: number, message: string): Failure {
  return { exitCode, code: "", reason: "", message, fields: [], metadata: {}, hints: [] };
}

function hintsOf({ reason, metadata, retryAfterMs }: Failure): string[] {
  if (reason === "") return [];
  const again = retryAfterMs === undefined ? [] : [`Try again in ${plural(Math.ceil(retryAfterMs / 1000), "second")}.`];
  switch (ErrorReason[reason as keyof typeof ErrorReason]) {
    case ErrorReason.CREDENTIAL_MISSING:
    case ErrorReason.CREDENTIAL_INVALID:
    case ErrorReason.CREDENTIAL_EXPIRED:
      return ["Give another credential with --api-key or POSTHORN_API_KEY; `npm start` makes new ones."];
    case ErrorReason.SCOPE_MISSING: {
      const scope = metadata.scope
        ?.replace(/^SCOPE_/, "")
        .toLowerCase()
        .replaceAll("_", "-");
      return scope === undefined ? [] : [`A key that may: posthorn key create "my key" --scope ${scope}`];
    }
    case ErrorReason.CALLER_NOT_ALLOWED:
      return ["See `posthorn whoami` for what this credential is."];
    case ErrorReason.INTERNAL:
      return metadata.request_id === undefined ? [] : [`Request id: ${metadata.request_id}`];
    default:
      return again;
  }
}

/** Fields of the contract that have an option of their own. */
const OPTIONS: Readonly<Record<string, string>> = {
  "content.title": "--title",
  "content.body": "--body",
  "content.data": "--data",
  "content.url": "--url",
  "content.image_url": "--image",
  to: "a user, --topic, --role or --everyone",
  "to.user_ids": "a user",
  "to.topics": "--topic",
  "to.roles": "--role",
  type: "--type",
  user_id: "--user",
  schedule_time: "--at",
  local_schedule_time: "--at-local",
  ttl: "--ttl",
  tags: "--tag",
  idempotency_key: "--idempotency-key",
  dedup_key: "--dedup-key",
  dedup_window: "--dedup-window",
  collapse_key: "--collapse-key",
  group_key: "--group-key",
  sender_id: "--sender",
  "escalation.steps": "--escalate",
  "escalation.steps.channel": "--escalate",
  "escalation.steps.after": "--escalate",
  cursor: "--cursor",
  device_id: "--device",
  scopes: "--scope",
};

function optionFor(field: string): string {
  const option = OPTIONS[field.replaceAll(/\[\d+\]/g, "")];
  return option === undefined ? "" : ` (set by ${option})`;
}

function codeName(code: Code): string {
  return Code[code].replaceAll(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
}

/** Line breaks of our own messages stay; nothing else may steer the terminal. */
function plainLines(text: string): string {
  return text
    .split("\n")
    .map((line, i) => (i === 0 ? plain(line) : `  ${plain(line.trim())}`))
    .join("\n");
}
