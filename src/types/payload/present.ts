import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type PayloadContract, PayloadContractSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import type { ContractHead, ContractRow } from "./queries.ts";

export function toContract(row: ContractHead | ContractRow): PayloadContract {
  return create(PayloadContractSchema, {
    version: row.version,
    message: row.message,
    createTime: timestampFromDate(row.createdAt),
    creator: row.createdBy,
    size: "size" in row ? row.size : row.descriptorSet.byteLength,
  });
}
