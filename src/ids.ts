import { V7Generator } from "uuidv7";

/** Makes UUIDv7 strings (RFC 9562 §5.7) that rise strictly within this process. */
export type NewId = () => string;

export function newIds(clock: () => Date): NewId {
  const generator = new V7Generator();
  return () => textOf(generator.generateOrResetCore(clock().getTime(), 10_000).bytes);
}

const HEX = new TextEncoder().encode("0123456789abcdef");
/** One for all calls: written and read within one, which nothing interrupts, so that it keeps nothing from one to the next. */
const text = Buffer.alloc(36, "-");

/** In one piece: one that is put together digit by digit, as the library does, holds a kilobyte until somebody reads it. */
function textOf(bytes: Readonly<Uint8Array>): string {
  let at = 0;
  for (const byte of bytes) {
    if (at === 8 || at === 13 || at === 18 || at === 23) at++;
    text[at++] = HEX[byte >> 4] as number;
    text[at++] = HEX[byte & 15] as number;
  }
  return text.toString("latin1");
}

/** When a UUIDv7 was made, in Unix milliseconds: its first 48 bits. */
export function madeAtMs(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}
