import { describe, expect, test, vi } from "vitest";
import { Flag, frame, headerBlock, settings, Type, uint32 } from "./frames.ts";
import { begin, callHead, rawSession } from "./raw-session.ts";
import { besieged } from "./siege.ts";

/** Attack 27: frames that cost the sender next to nothing. */

vi.setConfig({ testTimeout: 90_000 });
const { target, during } = await besieged();

const SEND = "/posthorn.v1.SendService/Send";
const CONNECTIONS = 8;
const FRAMES = 40_000;
const AT_ONCE = 1_000;

describe.each(target.ports)("on the $name port", (port) => {
  /**
   * Sends frames on several connections, one after the other, until the server hangs up or has got `FRAMES` of them;
   * resolves with how often it hung up. `hangsUp`: it is to, and may not have read yet what was written.
   */
  async function flood(make: (n: number) => Buffer, first: Buffer = Buffer.alloc(0), hangsUp = false): Promise<number> {
    let hungUp = 0;
    for (let connection = 0; connection < CONNECTIONS; connection++) {
      using session = await rawSession(port);
      await session.write(first);
      for (let sent = 0; sent < FRAMES && session.open; sent += AT_ONCE)
        await session.write(Buffer.concat(Array.from({ length: AT_ONCE }, (_, n) => make(sent + n))));
      if (hangsUp) await session.closed;
      if (!session.open) hungUp++;
    }
    return hungUp;
  }
  const head = callHead(port, SEND, target.apiKey);

  test("27: rapid reset", async () => {
    const hungUp = await during(() =>
      flood((n) => Buffer.concat([begin(2 * n + 1, head), frame(Type.RST_STREAM, 0, 2 * n + 1, uint32(8))])),
    );
    expect(hungUp).toBe(CONNECTIONS);
  });

  // CVE-2025-8671: calls that the client ends without a reset of its own, by frames that make the server send one.
  test("27: resets that the server is made to send", async () => {
    const wrong: ((id: number) => Buffer)[] = [
      (id) => Buffer.concat([begin(id, head), frame(Type.WINDOW_UPDATE, 0, id, uint32(0))]),
      (id) => Buffer.concat([begin(id, head), frame(Type.WINDOW_UPDATE, 0, id, uint32(0x7fff_ffff))]),
      (id) => Buffer.concat([begin(id, head), frame(Type.PRIORITY, 0, id, Buffer.alloc(4))]),
      (id) => Buffer.concat([begin(id, head, Flag.END_STREAM), frame(Type.DATA, 0, id, Buffer.alloc(1))]),
    ];
    for (const make of wrong) {
      const hungUp = await during(() => flood((n) => make(2 * n + 1), undefined, true));
      expect(hungUp).toBe(CONNECTIONS);
    }
  });

  test("27: a CONTINUATION flood", async () => {
    const hungUp = await during(() =>
      flood((n) => frame(Type.CONTINUATION, 0, 1, headerBlock([[`x-${n}`, "y"]])), frame(Type.HEADERS, 0, 1, head)),
    );
    expect(hungUp).toBe(CONNECTIONS);
  });

  test("27: a PING flood", async () => {
    await during(() => flood(() => frame(Type.PING, 0, 0, Buffer.alloc(8))));
  });

  test("27: a SETTINGS flood", async () => {
    await during(() => flood((n) => settings({ 4: 65_535 + (n % 100) })));
  });

  test("27: a flood of empty DATA frames", async () => {
    const hungUp = await during(() => flood(() => frame(Type.DATA, 0, 1), begin(1, head), true));
    expect(hungUp).toBe(CONNECTIONS);
  });
});
