import fc from "fast-check";
import type { Mutation } from "./steps.ts";

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

/** What a reader of protobuf has to expect at the end of a message. */
const TAILS: Readonly<Record<string, Uint8Array>> = {
  "an unknown number": hex("f8 7f 01"),
  "an unknown text": hex("fa 7f 03 61 62 63"),
  "an unknown group": hex("fb 7f fc 7f"),
  "a group that does not end": hex("fb 7f"),
  "the end of no group": hex("fc 7f"),
  "groups in groups": Buffer.concat([Buffer.alloc(4000, hex("fb 7f")), Buffer.alloc(4000, hex("fc 7f"))]),
  "field zero": hex("00 01"),
  "a wire type there is not": hex("07"),
  "a number without end": Buffer.alloc(20, 0xff),
  "a length beyond the end": hex("0a ff ff ff ff 0f 61"),
  "a length of 2^63": hex("0a ff ff ff ff ff ff ff ff 7f"),
  "thousands of unknown fields": Buffer.alloc(60_000, hex("f8 7f 01")),
  "a brace": Buffer.from("}"),
  "a second value": Buffer.from("{}"),
};

/** What stands in the place of the whole request. */
const WHOLES: Readonly<Record<string, Uint8Array>> = {
  nothing: Buffer.alloc(0),
  null: Buffer.from("null"),
  "a list": Buffer.from("[]"),
  "a number": Buffer.from("1"),
  "a text": Buffer.from('"x"'),
  "half an object": Buffer.from('{"a":'),
  "a key that is not there": Buffer.from('{"noSuchField":1}'),
  "a key with mischief": Buffer.from('{"__proto__":{"userId":"u1"},"<b>\\u0000":1}'),
  "a byte order mark": Buffer.from("\ufeff{}"),
  "lists in lists": Buffer.from("[".repeat(100_000)),
  "objects in objects": Buffer.from('{"filter":'.repeat(5_000)),
  "no text": hex("ff fe fd"),
};

/** Damage to bytes, of protobuf and JSON alike. */
export const mutations: fc.Arbitrary<Mutation> = fc.oneof(
  fc.double({ min: 0, max: 1, noNaN: true }).map(cut),
  fc.tuple(fc.nat(10_000), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => flip(at, bits)),
  fc.constantFrom(...Object.entries(TAILS)).map(([name, tail]) => ({
    name: `with ${name} at its end`,
    apply: (bytes: Uint8Array) => Buffer.concat([bytes, tail]),
  })),
  fc
    .constantFrom(...Object.entries(WHOLES))
    .map(([name, whole]) => ({ name: `replaced by ${name}`, apply: () => whole })),
  fc.uint8Array({ maxLength: 60 }).map((bytes) => ({ name: "replaced by noise", apply: () => bytes })),
);

function cut(share: number): Mutation {
  return { name: `cut at ${share}`, apply: (bytes) => bytes.subarray(0, Math.floor(bytes.length * share)) };
}

function flip(at: number, bits: number): Mutation {
  return {
    name: `byte ${at} damaged`,
    apply(bytes) {
      const damaged = Uint8Array.from(bytes);
      const index = at % Math.max(1, damaged.length);
      if (damaged.length > 0) damaged[index] = (damaged[index] ?? 0) ^ bits;
      return damaged;
    },
  };
}
