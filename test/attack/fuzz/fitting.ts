import { create, toBinary } from "@bufbuild/protobuf";
import { FieldDescriptorProto_Label, FieldDescriptorProto_Type, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Shape, Value } from "./shape.ts";

// Some requests have parts that must fit each other, which is more than a field's own rules say. Made field by field they
// are always refused; here one that is valid by those rules is made to fit.

/** `n`: any number, for what there is a choice of. */
export type Fit = (shape: Shape, n: number) => Shape;

/** The type that payload contracts are pushed to: to the others anything may be sent. */
export const TYPED = "typed";

const NOT_RECURRING = [
  "schedule_time",
  "local_schedule_time",
  "expire_time",
  "idempotency_key",
  "wait_for_decision",
  "bypass_rate_limit",
];
const NOT_PREVIEWED = ["idempotency_key", "wait_for_decision", "collapse_key"];

export const FITS: Readonly<Record<string, Fit>> = {
  "posthorn.v1.Schedule": (shape) => within(shape, "request", (request) => without(request, NOT_RECURRING)),
  "posthorn.v1.PreviewSendRequest": (shape, n) =>
    within(shape, "request", (request) =>
      within(without(request, NOT_PREVIEWED), "to", (to) =>
        given({ ...to, entries: [] }, "user_ids", { kind: "known", pool: "user", at: n, of: undefined }),
      ),
    ),
  "posthorn.v1.PushPayloadRequest": (shape, n) => ofPayload(without(shape, ["version"]), n),
  "posthorn.v1.CheckPayloadRequest": ofPayload,
  "posthorn.v1.GetPayloadRequest": (shape) => given(without(shape, ["version"]), "type", { kind: "text", text: TYPED }),
};

function ofPayload(shape: Shape, n: number): Shape {
  const parts: Record<string, Value> = {
    type: { kind: "text", text: TYPED },
    descriptor_set: { kind: "bytes", bytes: descriptorSet(n) },
    message: { kind: "text", text: "fuzz.Payload" },
  };
  return Object.entries(parts).reduce((all, [name, value]) => given(all, name, value), shape);
}

const { STRING, INT64, BOOL, DOUBLE } = FieldDescriptorProto_Type;
const TYPES = [STRING, INT64, BOOL, DOUBLE, STRING];

/** As a compiler writes it: a message of up to five fields, of which the first are the same in each. */
function descriptorSet(n: number): Uint8Array {
  const field = TYPES.slice(0, n % (TYPES.length + 1)).map((type, index) => ({
    name: `field_${index + 1}`,
    jsonName: `field${index + 1}`,
    number: index + 1,
    label: FieldDescriptorProto_Label.OPTIONAL,
    type,
  }));
  const file = { name: "fuzz/payload.proto", package: "fuzz", syntax: "proto3" };
  const set = create(FileDescriptorSetSchema, { file: [{ ...file, messageType: [{ name: "Payload", field }] }] });
  return toBinary(FileDescriptorSetSchema, set);
}

function without(shape: Shape, names: readonly string[]): Shape {
  return { ...shape, entries: shape.entries.filter(({ field }) => !names.includes(field.name)) };
}

function given(shape: Shape, name: string, value: Value): Shape {
  const field = shape.desc.fields.find((each) => each.name === name);
  if (field === undefined) throw new Error(`${shape.desc.typeName} has no ${name}`);
  return { ...shape, entries: [...without(shape, [name]).entries, { field, value }] };
}

/** Changes a message in the message, where it is given. */
function within(shape: Shape, name: string, change: (part: Shape) => Shape): Shape {
  const entries = shape.entries.map((entry) =>
    entry.field.name === name && entry.value.kind === "shape"
      ? { ...entry, value: { kind: "shape" as const, shape: change(entry.value.shape) } }
      : entry,
  );
  return { ...shape, entries };
}
