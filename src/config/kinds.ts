/** The kinds of value a setting can have. Each reads text strictly: what it does not understand is refused, not guessed. */

import type { Kind } from "./option.ts";

/** Longest delay a Node timer can hold; beyond it, a timer fires at once. */
const maxTimerMs = 2 ** 31 - 1;

export function text(expected: string, example: string, pattern: RegExp): Kind<string> {
  return { expected, example, parse: (value) => (pattern.test(value) ? value : undefined), show: (value) => value };
}

export const path: Kind<string> = text("the path of a file", "/etc/posthorn/tls.pem", /^[^\0]+$/);
export const host: Kind<string> = text("a host name or address to listen on", "0.0.0.0", /^[A-Za-z0-9.:_-]+$/);

/** A host to connect to, as it stands in a URL: an IPv6 address comes out in brackets. */
export const remoteHost: Kind<string> = {
  expected: "a host name or address",
  example: "redis",
  parse: (value) => {
    const inUrl = /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$/.test(value) ? `[${value}]` : value;
    return /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)$/.test(inUrl) && URL.canParse(`redis://${inUrl}:1`)
      ? inUrl
      : undefined;
  },
  show: (value) => value,
};

export function choice<const T extends string>(...values: readonly T[]): Kind<T> {
  return {
    expected: `one of ${values.join(", ")}`,
    example: values[0] ?? "",
    parse: (value) => values.find((known) => known === value.toLowerCase()),
    show: (value) => value,
  };
}

/** A whole number in plain digits; "1e3", "0x10" and "5s" are refused. */
export function integer(min: number, max: number): Kind<number> {
  return {
    expected: `a whole number from ${min} to ${max}`,
    example: String(min),
    parse: (value) => (/^-?\d{1,15}$/.test(value) ? within(Number(value), min, max) : undefined),
    show: String,
  };
}

export function decimal(min: number, max: number): Kind<number> {
  return {
    expected: `a number from ${min} to ${max}`,
    example: String(min),
    parse: (value) => (/^-?\d{1,9}(\.\d{1,9})?$/.test(value) ? within(Number(value), min, max) : undefined),
    show: String,
  };
}

export function milliseconds(min: number, max: number = maxTimerMs): Kind<number> {
  return { ...integer(min, Math.min(max, maxTimerMs)), expected: `milliseconds from ${min} to ${max}, digits only` };
}

/** 0 asks the system for a free port, which is told at start. */
export const port: Kind<number> = { ...integer(0, 65_535), expected: "a port from 0 to 65535", example: "8080" };

export const flag: Kind<boolean> = {
  expected: "true or false",
  example: "true",
  parse: (value) => {
    const word = value.toLowerCase();
    if (["true", "1", "yes", "on"].includes(word)) return true;
    return ["false", "0", "no", "off"].includes(word) ? false : undefined;
  },
  show: String,
};

/** An absolute URL, kept as written (parsing would normalise the credentials in it). */
export function url(protocols: readonly string[], example: string): Kind<string> {
  return {
    expected: `a URL beginning with ${protocols.map((protocol) => `${protocol}://`).join(" or ")}`,
    example,
    parse: (value) => {
      if (!URL.canParse(value)) return undefined;
      const { protocol, hostname } = new URL(value);
      return protocols.includes(protocol.slice(0, -1)) && hostname !== "" ? value : undefined;
    },
    show: (value) => value,
  };
}

/** What a browser sends as `Origin`, which has no path and no trailing slash (RFC 6454 §6.2); "*" is every origin. */
export const origin: Kind<string> = {
  expected: "an origin such as https://app.example.com (scheme, host and port, no path)",
  example: "https://app.example.com",
  parse: (value) => {
    if (value === "*") return value;
    if (!/^https?:\/\/[^/?#@\s]+\/?$/.test(value) || !URL.canParse(value)) return undefined;
    return new URL(value).origin;
  },
  show: (value) => value,
};

/** Items separated by commas, blanks around them ignored; at least one, none twice. */
export function list<T extends string | Uint8Array>(item: Kind<T>, each: string = item.expected): Kind<readonly T[]> {
  return {
    expected: `a comma-separated list, none twice, each ${each}`,
    example: item.example,
    parse: (value) => {
      const parts = value.split(",").map((part) => part.trim());
      const parsed = parts.map((part) => (part === "" ? undefined : item.parse(part)));
      const whole = parsed.filter((part) => part !== undefined);
      const distinct = new Set(whole.map((part) => item.show(part)));
      return whole.length === parts.length && distinct.size === parts.length ? whole : undefined;
    },
    show: (values) => values.map((value) => item.show(value)).join(","),
  };
}

/** Shared secrets: 32 characters is what HS256 needs at least (RFC 7518 §3.2). No comma, so that they can be listed. */
export const sharedSecret: Kind<string> = {
  ...text("at least 32 printable characters without blanks or commas", "", /^[!-+\--~]{32,512}$/),
  example: "$(openssl rand -hex 32)",
};

/** The 32 bytes of an AES-256 key, as 64 hexadecimal digits or as base64 (either alphabet). */
export const key256: Kind<Uint8Array> = {
  expected: "32 bytes as 64 hexadecimal digits or 44 characters of base64",
  example: "$(openssl rand -base64 32)",
  parse: (value) => {
    if (/^[0-9a-fA-F]{64}$/.test(value)) return Uint8Array.from(Buffer.from(value, "hex"));
    if (!/^[A-Za-z0-9+/_-]{43}=?$/.test(value)) return undefined;
    const bytes = Uint8Array.from(Buffer.from(value, "base64"));
    return bytes.length === 32 ? bytes : undefined;
  },
  show: (value) => Buffer.from(value).toString("hex"),
};

function within(value: number, min: number, max: number): number | undefined {
  return value >= min && value <= max ? value : undefined;
}
