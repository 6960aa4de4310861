/**
 * Bytes that come in pieces, and are taken in others. What it holds is no more than twice as large as what came, however
 * small the pieces are, and a piece that is taken as it came is not copied.
 */
export class Gathered {
  #room: Buffer = Buffer.alloc(0);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return this.#room.subarray(0, this.#length);
  }

  add(piece: Uint8Array): void {
    const length = this.#length + piece.byteLength;
    if (this.#length === 0) {
      this.#room = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    } else {
      if (length > this.#room.length) {
        const room = Buffer.allocUnsafe(Math.max(length, 2 * this.#length));
        room.set(this.bytes);
        this.#room = room;
      }
      this.#room.set(piece, this.#length);
    }
    this.#length = length;
  }

  /** The first `length` bytes. Nothing is written to them afterwards. */
  take(length: number): Buffer {
    const taken = this.#room.subarray(0, length);
    this.#room = this.#room.subarray(length, this.#length);
    this.#length -= length;
    return taken;
  }
}
