import { invalidField } from "#src/errors.ts";

/** Where a client is in a user's inbox: everything up to `seq` of the inbox begun as `epoch` has been received. */
export type Cursor = { epoch: number; seq: number };

/** Opaque to clients: version, epoch and sequence, 13 bytes in base64url. */
export function encodeCursor({ epoch, seq }: Cursor): string {
  const bytes = Buffer.allocUnsafe(13);
  bytes.writeUInt8(1, 0);
  bytes.writeInt32BE(epoch, 1);
  bytes.writeBigInt64BE(BigInt(seq), 5);
  return bytes.toString("base64url");
}

/** Undefined for the empty cursor. Throws INVALID_REQUEST naming `cursor`. */
export function decodeCursor(text: string): Cursor | undefined {
  if (text === "") return undefined;
  const bytes = Buffer.from(text, "base64url");
  const seq = bytes.length === 13 ? Number(bytes.readBigInt64BE(5)) : Number.NaN;
  if (bytes.length !== 13 || bytes.readUInt8(0) !== 1 || !Number.isSafeInteger(seq) || seq < 0) {
    throw invalidField(
      "cursor",
      "is not a cursor of this service; leave it empty to begin with what happens from now on",
    );
  }
  return { epoch: bytes.readInt32BE(1), seq };
}
