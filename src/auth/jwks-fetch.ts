import { lookup } from "node:dns/promises";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { isLoopbackAddress, isPublicAddress } from "./public-address.ts";

/**
 * Reads a JSON document from a URL that a tenant chose. Rejects on everything but a 200 of at most 256 KiB within five
 * seconds from an address that may be reached; follows no redirect.
 */
export type FetchKeySet = (url: string) => Promise<unknown>;

export type Reach = {
  /** Development only: plain http, and only to this machine. */
  loopback: boolean;
};

/** The addresses of a name, as the system resolves it. */
export type Resolve = (hostname: string) => Promise<{ address: string; family: number }[]>;

const MAX_BYTES = 256 * 1024;
const TIMEOUT_MS = 5000;

/** What is wrong with a URL of a key set, as far as the URL itself tells; undefined when nothing is. */
export function keySetUrlFault(text: string, reach: Reach): string | undefined {
  if (!URL.canParse(text)) return "is not a URL";
  const url = new URL(text);
  const address = literalAddress(url);
  if (url.username !== "" || url.password !== "") return "must not hold credentials";
  if (url.hash !== "") return "must not have a fragment";
  if (reach.loopback && isLoopbackHost(url)) {
    return url.protocol === "http:" || url.protocol === "https:" ? undefined : "must be an https URL";
  }
  if (url.protocol !== "https:") return "must be an https URL";
  if (address !== undefined && !isPublicAddress(address)) return "must lead to a public address";
  return undefined;
}

export function keySetFetcher(
  reach: Reach,
  { timeoutMs = TIMEOUT_MS, resolve = resolveName }: { timeoutMs?: number; resolve?: Resolve } = {},
): FetchKeySet {
  return (text) => {
    const fault = keySetUrlFault(text, reach);
    if (fault !== undefined) return Promise.reject(new Error(`the JWKS URL ${fault}`));
    const url = new URL(text);
    const mayReach = reach.loopback && isLoopbackHost(url) ? isLoopbackAddress : isPublicAddress;
    return read(url, checkedLookup(resolve, mayReach), timeoutMs);
  };
}

function read(url: URL, lookup: LookupFunction, timeoutMs: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, {
      agent: false,
      headers: { accept: "application/jwk-set+json, application/json", "accept-encoding": "identity" },
      // Checked where the connection is made: a name that resolves anew (DNS rebinding) finds the same check.
      lookup,
      signal: AbortSignal.timeout(timeoutMs),
    });
    request.on("error", reject);
    request.on("response", (response) => {
      response.on("error", reject);
      const refuse = (why: string) => {
        reject(new Error(`the JWKS server ${why}`));
        request.destroy();
      };
      if (response.statusCode !== 200) return refuse(`answered ${response.statusCode}`);
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > MAX_BYTES) return refuse("sent too much");
        chunks.push(chunk);
      });
      response.on("end", () => {
        try {
          resolve(JSON.parse(Buffer.concat(chunks).toString()));
        } catch {
          refuse("did not send JSON");
        }
      });
      response.on("close", () => reject(new Error("the JWKS server broke off")));
    });
    request.end();
  });
}

const resolveName: Resolve = (hostname) => lookup(hostname, { all: true });

function checkedLookup(resolve: Resolve, mayReach: (address: string) => boolean): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname)
      .then((addresses) => {
        const [first] = addresses;
        // One forbidden address condemns the name: a server of the public internet has none.
        if (first === undefined || !addresses.every(({ address }) => mayReach(address))) {
          throw new Error("the JWKS URL leads to an address that is not public");
        }
        if (options.all) callback(null, addresses);
        else callback(null, first.address, first.family);
      })
      .catch((error) => callback(error, ""));
  };
}

/** The address a URL names without DNS. The URL parser has already undone octal, decimal and hexadecimal forms. */
function literalAddress(url: URL): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return isIP(host) === 0 ? undefined : host;
}

function isLoopbackHost(url: URL): boolean {
  return url.hostname === "localhost" || isLoopbackAddress(literalAddress(url) ?? "");
}
