import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import type { ServerInterceptor } from "@grpc/grpc-js";
import { Code } from "#src/errors.ts";

type Compressed = { decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer> };

/** Each may become as large as a message may be. */
const AT_ONCE = 4;
const PREFIX_BYTES = 5;
const ways = new Map([
  ["gzip", promisify(gunzip)],
  ["deflate", promisify(inflate)],
]);

/**
 * Decompresses a few messages at a time: grpc-js begins with all that are there, and a thousand small bombs on one
 * connection would be four gigabytes. It replaces a private method of grpc-js 1.14; where there is none, nothing changes.
 */
export function decompressInTurn(maxBytes: number): ServerInterceptor {
  let running = 0;
  const waiting: (() => void)[] = [];
  const inTurn = async (work: () => Promise<Buffer>): Promise<Buffer> => {
    if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
  return (_definition, call) => {
    const its = call as unknown as Compressed;
    const original = its.decompressMessage;
    if (typeof original === "function")
      its.decompressMessage = function (message, encoding) {
        const way = ways.get(encoding);
        if (way === undefined) return original.call(this, message, encoding);
        return inTurn(() => way(message.subarray(PREFIX_BYTES), { maxOutputLength: maxBytes })).catch((error) => {
          const tooLarge = error instanceof RangeError;
          throw { code: tooLarge ? Code.RESOURCE_EXHAUSTED : Code.INTERNAL, details: "" };
        });
      };
    return call as ReturnType<ServerInterceptor>;
  };
}
