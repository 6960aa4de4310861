import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ActionSchema, type Content, ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { encodeContent } from "#src/notifications/encode-content.ts";

const text = fc.string({ unit: "binary", maxLength: 200 });
const data = fc.dictionary(
  text,
  fc.jsonValue({ noUnicodeString: false, maxDepth: 4 }).map((value) => value as never),
);
const content = fc.record({
  title: text,
  body: text,
  data: fc.option(data, { nil: undefined }),
  actions: fc.array(fc.record({ id: text, label: text, url: text }), { maxLength: 3 }),
  url: text,
  imageUrl: text,
  icon: text,
  typed: fc.option(fc.record({ message: text, version: fc.nat(), value: fc.uint8Array({ maxLength: 50 }) }), {
    nil: undefined,
  }),
});

test("content is encoded byte for byte as by the library, with every field of it", () => {
  const filled = new Set<string>();
  fc.assert(
    fc.property(content, (of) => {
      const { data, typed, ...rest } = of;
      const message = create(ContentSchema, {
        ...rest,
        ...(data === undefined ? {} : { data }),
        ...(typed === undefined ? {} : { typed }),
      });
      expect(encodeContent(message)).toEqual(toBinary(ContentSchema, message));
      for (const { localName } of ContentSchema.fields) if (message[localName as keyof Content]) filled.add(localName);
    }),
  );
  // `payload` is only for requests, and never stored.
  expect(filled.size).toBe(ContentSchema.fields.length - 1);
  const request = create(ContentSchema, { title: "t", payload: { typeUrl: "x/y", value: new Uint8Array(3) } });
  expect(encodeContent(request)).toEqual(toBinary(ContentSchema, create(ContentSchema, { title: "t" })));
  expect(ActionSchema.fields.map(({ localName }) => localName)).toEqual(["id", "label", "url"]);
});

test("content that cannot be encoded leaves nothing behind for the next", () => {
  const broken = create(ContentSchema, { title: "secret", data: { n: 1n as never } });
  expect(() => encodeContent(broken)).toThrow();
  expect(encodeContent(create(ContentSchema, { title: "mine" }))).toEqual(
    toBinary(ContentSchema, create(ContentSchema, { title: "mine" })),
  );
});
