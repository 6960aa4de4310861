import { BinaryReader } from "@bufbuild/protobuf/wire";
import { LiveEvent_Kind, LiveEventSchema } from "#gen/posthorn/internal/v1/live_pb.ts";
import { Encoded } from "#src/rpc/call.ts";
import type { Filtered } from "./filter.ts";

const FIELD = LiveEventSchema.field;

/**
 * A LiveEvent as a hub reads it: what it needs of every event at once, and what filters look at when one does. Every
 * stream's every event is read here; the whole message would cost ten times as much.
 */
export class ReceivedEvent implements Filtered {
  kind: LiveEvent_Kind = LiveEvent_Kind.UNSPECIFIED;
  sequence = 0;
  epoch = 0;
  priority = 0;
  delivered = false;
  /** When it was accepted, if its way is measured; else 0. */
  acceptedMs = 0;
  /** The notification's trace, if it is followed. */
  traceparent = "";
  /** The SubscribeResponse for the streams. */
  response = NOTHING;
  readonly #bytes: Uint8Array;
  #typeAt = -1;
  #categoryAt = -1;
  #tagsAt: number[] | undefined;

  /** Throws when the bytes are not a protobuf message. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      switch (number) {
        case FIELD.kind.number:
          this.kind = reader.int32() as LiveEvent_Kind;
          break;
        case FIELD.sequence.number:
          this.sequence = Number(reader.int64());
          break;
        case FIELD.epoch.number:
          this.epoch = reader.int32();
          break;
        case FIELD.priority.number:
          this.priority = reader.int32();
          break;
        case FIELD.delivered.number:
          this.delivered = reader.bool();
          break;
        case FIELD.acceptedMs.number:
          this.acceptedMs = Number(reader.int64());
          break;
        case FIELD.traceparent.number:
          this.traceparent = reader.string();
          break;
        case FIELD.response.number:
          this.response = new Encoded(reader.bytes());
          break;
        default:
          if (number === FIELD.type.number) this.#typeAt = reader.pos;
          else if (number === FIELD.category.number) this.#categoryAt = reader.pos;
          else if (number === FIELD.tags.number) {
            this.#tagsAt ??= [];
            this.#tagsAt.push(reader.pos);
          }
          reader.skip(wireType, number);
      }
    }
  }

  get watched(): boolean {
    return this.acceptedMs !== 0 || this.traceparent !== "";
  }

  get type(): string {
    return this.#textAt(this.#typeAt);
  }

  get category(): string {
    return this.#textAt(this.#categoryAt);
  }

  get tags(): string[] {
    return (this.#tagsAt ?? []).map((at) => this.#textAt(at));
  }

  #textAt(at: number): string {
    if (at < 0) return "";
    const reader = new BinaryReader(this.#bytes);
    reader.pos = at;
    return reader.string();
  }
}

const NOTHING = new Encoded(new Uint8Array());
