import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";

export type Argument = string | number | Buffer;

/** Runs a Lua script in Redis, which does it as one step. Sends its text only where Redis does not know it yet. */
export type Script = (keys: readonly string[], args: readonly Argument[]) => Promise<unknown>;

/** `parts`: of one script, in their order. */
export function loadScript(redis: Redis, ...parts: readonly URL[]): Script {
  const lua = parts.map((part) => readFileSync(part, "utf8")).join("\n");
  const sha = createHash("sha1").update(lua).digest("hex");
  return async (keys, args) => {
    try {
      return await redis.evalsha(sha, keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
      return redis.eval(lua, keys.length, ...keys, ...args);
    }
  };
}
