import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import type { ServerInterceptor } from "@grpc/grpc-js";
import { Code } from "#src/errors.ts";
import { inTurn } from "#src/in-turn.ts";

type Compressed = {
  readonly maxReceiveMessageSize: number;
  decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer>;
};

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
export function decompressInTurn(): ServerInterceptor {
  const aFew = inTurn(AT_ONCE);
  function decompressMessage(this: Compressed, message: Buffer, encoding: string): Buffer | Promise<Buffer> {
    const way = ways.get(encoding);
    if (way === undefined) return Object.getPrototypeOf(this).decompressMessage.call(this, message, encoding);
    return aFew(() => way(message.subarray(PREFIX_BYTES), { maxOutputLength: this.maxReceiveMessageSize })).catch(
      (error) => {
        const tooLarge = error instanceof RangeError;
        throw { code: tooLarge ? Code.RESOURCE_EXHAUSTED : Code.INTERNAL, details: "" };
      },
    );
  }
  return (_definition, call) => {
    const its = call as unknown as Compressed;
    if (typeof its.decompressMessage === "function") its.decompressMessage = decompressMessage;
    return call as ReturnType<ServerInterceptor>;
  };
}
