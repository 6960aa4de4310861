import { cors } from "@connectrpc/connect";
import { DEPRECATION_HEADERS } from "../deprecation-headers.ts";
import type { HttpRequest, HttpResponse } from "./dual.ts";

const ALLOWED_HEADERS = [...cors.allowedHeaders, "Authorization", "Posthorn-Tenant", "Traceparent", "Tracestate"].join(
  ", ",
);
const EXPOSED_HEADERS = [...cors.exposedHeaders, ...DEPRECATION_HEADERS].join(", ");
const ALLOWED_METHODS = cors.allowedMethods.join(", ");

/**
 * Cross-origin calls of pages from the configured origins (Fetch standard §3.2), for all three protocols. Credentials
 * are headers, never cookies, so none are allowed along.
 *
 * @returns a function that answers preflights and marks answers; true: the request was a preflight and is answered
 */
export function corsFor(origins: readonly string[]): (request: HttpRequest, response: HttpResponse) => boolean {
  const allowed = new Set(origins);
  return (request, response) => {
    const { origin } = request.headers;
    if (origin === undefined) return false;
    const known = allowed.has(origin);
    response.setHeader("Vary", "Origin");
    if (known) {
      response.setHeader("Access-Control-Allow-Origin", origin);
      response.setHeader("Access-Control-Expose-Headers", EXPOSED_HEADERS);
    }
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) return false;
    if (known) {
      response.setHeader("Access-Control-Allow-Methods", ALLOWED_METHODS);
      response.setHeader("Access-Control-Allow-Headers", ALLOWED_HEADERS);
      response.setHeader("Access-Control-Max-Age", "7200");
    }
    response.statusCode = 204;
    response.end();
    return true;
  };
}
