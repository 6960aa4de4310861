import { createHmac, timingSafeEqual } from "node:crypto";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/**
 * Keyset page tokens: opaque, tamper-evident, and tied to the caller's tenant, method and filters, so that a token of
 * one list is refused by another instead of giving wrong pages (AIP-158).
 */
export type PageTokens = {
  /** `query` is everything that must be equal on the next call; `position` is where the next page begins. */
  seal(query: readonly unknown[], position: readonly (string | number)[]): string;
  /** The position of a token, or undefined for the first page. Throws INVALID_PAGE_TOKEN. */
  open(query: readonly unknown[], token: string): (string | number)[] | undefined;
};

export function pageTokens(key: Uint8Array): PageTokens {
  const sign = (query: readonly unknown[], position: string) =>
    createHmac("sha256", key).update(JSON.stringify(query)).update("\0").update(position).digest().subarray(0, 12);
  return {
    seal(query, position) {
      const text = JSON.stringify(position);
      return Buffer.concat([sign(query, text), Buffer.from(text)]).toString("base64url");
    },
    open(query, token) {
      if (token === "") return undefined;
      const bytes = Buffer.from(token, "base64url");
      const text = bytes.subarray(12).toString();
      if (bytes.length < 12 || !timingSafeEqual(bytes.subarray(0, 12), sign(query, text))) {
        throw new Fault(ErrorReason.INVALID_PAGE_TOKEN, {
          fields: [{ field: "page_token", description: "is damaged or belongs to a request with other filters" }],
        });
      }
      return JSON.parse(text) as (string | number)[];
    },
  };
}
