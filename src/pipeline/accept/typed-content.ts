import type { Content } from "#gen/posthorn/v1/notification_pb.ts";
import { type Fault, invalidField, invalidRequest } from "#src/errors.ts";
import type { Contract } from "#src/types/payload/contract.ts";
import { type Payload, type Refused, readAny, readJson } from "#src/types/payload/read.ts";
import { checkData, checkShape } from "./check-data.ts";

/**
 * Content as it is stored, whose `typed` is the server's: of a type with a contract the payload in both forms, JSON too,
 * so that whoever shows, streams or filters it needs no descriptors. Pure. Throws INVALID_REQUEST naming the fields.
 */
export function typedContent(content: Content, type: { key: string; contract?: Contract | undefined }): Content {
  const { contract } = type;
  if (contract === undefined) {
    if (content.payload !== undefined) throw invalidField("content.payload", noContract(type.key));
    checkData(content.data);
    return content.typed === undefined ? content : without(content);
  }
  const { desc, version } = contract;
  const { payload, data } = content;
  if (payload !== undefined && data !== undefined) {
    throw invalidField("content.payload", "or data, not both: data is the same in JSON");
  }
  if (payload === undefined && data === undefined) {
    throw invalidField("content.payload", `or data is required: the type "${type.key}" takes a ${desc.typeName}`);
  }
  if (data !== undefined) checkShape(data);
  const field = payload === undefined ? "content.data" : "content.payload";
  const read = payload === undefined ? readJson(contract, data ?? {}) : readAny(contract, payload);
  if ("faults" in read) throw refusal(field, read);
  checkData(read.json, field);
  return { ...without(content), data: read.json, typed: typed(desc.typeName, version, read) };
}

function noContract(key: string): string {
  return `the type "${key}" has no payload contract: send data, or push one (PushPayload)`;
}

function without({ payload: _, typed: __, ...rest }: Content): Content {
  return rest;
}

function typed(message: string, version: number, { value }: Payload): NonNullable<Content["typed"]> {
  return { $typeName: "posthorn.v1.TypedPayload", message, version, value };
}

function refusal(at: string, { faults }: Refused): Fault {
  return invalidRequest(
    faults.map(({ field, description }) => ({ field: field === "" ? at : `${at}.${field}`, description })),
  );
}
