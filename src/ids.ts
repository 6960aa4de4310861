import { V7Generator } from "uuidv7";

/** Makes UUIDv7 strings (RFC 9562 §5.7) that rise strictly within this process. */
export type NewId = () => string;

export function newIds(clock: () => Date): NewId {
  const generator = new V7Generator();
  return () => generator.generateOrResetCore(clock().getTime(), 10_000).toString();
}

/** When a UUIDv7 was made, in Unix milliseconds: its first 48 bits. */
export function madeAtMs(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}
