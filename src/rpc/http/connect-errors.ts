import { ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import { detailsOf, messageOf, statusBytes } from "../fault-details.ts";
import type { Transport } from "../rpc-telemetry.ts";
import { unreadable } from "../to-fault.ts";
import type { HttpResponse } from "./dual.ts";
import { writeHead } from "./http-exchange.ts";
import type { Incoming } from "./incoming.ts";

/** A fault as the Connect library sends it, on all of its protocols. */
export function connectErrorOf(fault: Fault): ConnectError {
  return new ConnectError(
    messageOf(fault),
    fault.code,
    undefined,
    detailsOf(fault).map(({ desc, value }) => ({ desc, value })),
  );
}

/** An error the Connect library made while it read a request, as ours. Others are returned as they are. */
export async function faultOfConnect(error: unknown, incoming: Incoming): Promise<unknown> {
  if (!(error instanceof ConnectError)) return error;
  if (error.code === Code.RESOURCE_EXHAUSTED) return unreadable(error.code);
  const hint = error.code === Code.INVALID_ARGUMENT ? hintIn(error.rawMessage) : undefined;
  return unreadable(error.code, hint, await incoming.unreadableField());
}

/** A refusal of the library as read from its answer to a unary Connect call, `{ "code": …, "message": … }`. */
export async function faultOfBody(response: UniversalServerResponse, incoming: Incoming): Promise<Fault> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body ?? []) chunks.push(chunk);
  try {
    const { code, message } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as { code?: string; message?: string };
    if (code === "resource_exhausted") return unreadable(Code.RESOURCE_EXHAUSTED);
    const hint = code === "invalid_argument" ? hintIn(message ?? "") : undefined;
    return unreadable(Code.INVALID_ARGUMENT, hint, await incoming.unreadableField());
  } catch {
    return unreadable(Code.INVALID_ARGUMENT);
  }
}

/** What it says of JSON helps whoever wrote it; what it says of bytes does not, and is not said on the gRPC port either. */
function hintIn(message: string): string | undefined {
  return message.startsWith("protocol error") ? undefined : message;
}

/** The answer to a unary Connect call that is refused. */
export function unaryConnectError(fault: Fault): UniversalServerResponse {
  const body = errorToJsonBytes(connectErrorOf(fault), undefined);
  return {
    status: codeToHttpStatus(fault.code),
    header: new Headers({ "content-type": "application/json", "content-length": String(body.byteLength) }),
    body: (async function* () {
      yield body;
    })(),
  };
}

/** UNKNOWN_METHOD in the words of the protocol the caller speaks. */
export function answerUnknownMethod(transport: Transport, contentType: string, response: HttpResponse): void {
  const fault = new Fault(ErrorReason.UNKNOWN_METHOD);
  if (transport === "connect") {
    const { status } = unaryConnectError(fault);
    writeHead(response, status, { "content-type": "application/json" });
    response.end(Buffer.from(errorToJsonBytes(connectErrorOf(fault), undefined)));
    return;
  }
  writeHead(response, 200, {
    "content-type": contentType,
    "grpc-status": String(fault.code),
    "grpc-message": encodeURIComponent(messageOf(fault)),
    "grpc-status-details-bin": Buffer.from(statusBytes(fault)).toString("base64"),
  });
  response.end();
}
