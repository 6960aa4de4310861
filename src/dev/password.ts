import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";

/** The password kept in this file, made up on the first call: a server's address survives its restart. */
export async function passwordIn(file: string): Promise<string> {
  await writeFile(file, randomBytes(24).toString("base64url"), { flag: "wx", mode: 0o600 }).catch(() => undefined);
  return (await readFile(file, "utf8")).trim();
}
