import { create, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { checkFiles } from "./check-files.ts";
import { DescriptorFault, named } from "./descriptor-fault.ts";
import { OWN_FILES } from "./own-files.ts";

/**
 * The files that a message needs, as they were pushed but for their comments, each after those it imports. Without those
 * that are taken from own-files.ts.
 */
export type CheckedSet = {
  /** Encoded google.protobuf.FileDescriptorSet: without source information and what the message does not need. */
  readonly bytes: Uint8Array;
  readonly files: readonly FileDescriptorProto[];
};

/** Without source information. As the contract says. */
export const MAX_SET_BYTES = 256 * 1024;
/** Fields of all messages in a set: what reading it costs. A set of five thousand fields has some forty thousand. */
const MAX_PARTS = 60_000;
/** Messages in messages, options with their parts among them. */
const MAX_DEPTH = 24;
const MAX_FILES = 200;
const KEPT_FIELDS: ReadonlySet<number> = new Set(
  FileDescriptorProtoSchema.fields
    .filter(({ localName }) => localName !== "sourceCodeInfo")
    .map(({ number }) => number),
);

/**
 * Reads a FileDescriptorSet that may be anything, and keeps what the file that declares `message` needs. Cheap whatever
 * it is given: nothing is decoded before it is counted, nothing is built before it is checked. Throws DescriptorFault.
 */
export function readDescriptorSet(pushed: Uint8Array, message: string): CheckedSet {
  const stripped = decoding(() => withoutSourceInfo(pushed));
  if (stripped.byteLength > MAX_SET_BYTES) {
    throw new DescriptorFault(`is ${stripped.byteLength} bytes without comments; ${MAX_SET_BYTES} are allowed`);
  }
  const { file } = decoding(() => {
    countParts(FileDescriptorSetSchema, new BinaryReader(stripped), { left: MAX_PARTS }, 0);
    return fromBinary(FileDescriptorSetSchema, stripped);
  });
  const files = needed(file, message);
  checkFiles(files);
  return { files, bytes: toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [...files] })) };
}

/** A set that was checked when it was stored. */
export function storedFiles(bytes: Uint8Array): readonly FileDescriptorProto[] {
  return fromBinary(FileDescriptorSetSchema, bytes).file;
}

function decoding<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof DescriptorFault) throw error;
    throw new DescriptorFault(
      "is no google.protobuf.FileDescriptorSet: give what `buf build -o` or `protoc --include_imports -o` writes",
    );
  }
}

/**
 * On the wire, because comments are most of many a set and cost more to decode than all the rest. What tools add to a file
 * of their own (`buf build` does) goes, too.
 */
export function withoutSourceInfo(set: Uint8Array): Uint8Array {
  return mapFields(set, (number, wireType, field) => {
    if (number !== FileDescriptorSetSchema.field.file.number || wireType !== WireType.LengthDelimited) return undefined;
    return mapFields(new BinaryReader(field).bytes(), (inner) => (KEPT_FIELDS.has(inner) ? KEPT : undefined));
  });
}

const KEPT = new Uint8Array();

/** A message of the fields for which `map` answers: KEPT keeps one as it is, other bytes take its place, undefined drops it. */
function mapFields(
  message: Uint8Array,
  map: (number: number, wireType: WireType, value: Uint8Array) => Uint8Array | undefined,
): Uint8Array {
  const reader = new BinaryReader(message);
  const writer = new BinaryWriter();
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const value = reader.skip(wireType, number);
    const mapped = map(number, wireType, value);
    if (mapped === KEPT) writer.tag(number, wireType).raw(value);
    else if (mapped !== undefined) writer.tag(number, wireType).bytes(mapped);
  }
  return writer.finish();
}

function countParts(desc: DescMessage, reader: BinaryReader, count: { left: number }, depth: number): void {
  if (depth > MAX_DEPTH) throw new DescriptorFault(`has messages nested more than ${MAX_DEPTH} deep`);
  while (reader.pos < reader.len) {
    if (--count.left < 0) throw new DescriptorFault(`has more than ${MAX_PARTS} parts`);
    const [number, wireType] = reader.tag();
    const field = desc.fields.find((each) => each.number === number);
    if (field?.message === undefined || wireType !== WireType.LengthDelimited) {
      const value = reader.skip(wireType, number);
      // Lists of numbers, such as paths.
      if (field?.fieldKind === "list" && field.listKind === "scalar") count.left -= value.byteLength >> 3;
    } else countParts(field.message, new BinaryReader(reader.bytes()), count, depth + 1);
  }
}

/** The file that declares the message and all it imports, each after those it imports. */
function needed(given: readonly FileDescriptorProto[], message: string): FileDescriptorProto[] {
  const byName = new Map<string, FileDescriptorProto>();
  if (given.length > MAX_FILES) throw new DescriptorFault(`has ${given.length} files; ${MAX_FILES} are allowed`);
  for (const file of given) {
    if (byName.has(file.name)) throw new DescriptorFault(`has the file ${named(file.name)} twice`);
    byName.set(file.name, file);
  }
  const declaring = given.filter((file) => !OWN_FILES.has(file.name) && declares(file, message));
  const [root, other] = declaring;
  if (root === undefined) throw new DescriptorFault(`declares no message ${named(message)}`);
  if (other !== undefined)
    throw new DescriptorFault(`declares ${named(message)} in ${named(root.name)} and ${named(other.name)}`);
  const ordered: FileDescriptorProto[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = (file: FileDescriptorProto): void => {
    state.set(file.name, "open");
    for (const name of file.dependency) {
      if (state.get(name) === "open")
        throw new DescriptorFault(`imports in a circle: ${named(file.name)}, ${named(name)}`);
      if (state.get(name) === "done") continue;
      if (OWN_FILES.has(name)) continue;
      const imported = byName.get(name);
      if (imported !== undefined) visit(imported);
      else {
        throw new DescriptorFault(
          `lacks ${named(name)}, which ${named(file.name)} imports: build it with its imports (protoc --include_imports)`,
        );
      }
    }
    state.set(file.name, "done");
    ordered.push(file);
  };
  visit(root);
  return ordered;
}

function declares(file: FileDescriptorProto, message: string): boolean {
  const prefix = file.package === "" ? "" : `${file.package}.`;
  if (!message.startsWith(prefix)) return false;
  let [name, ...rest] = message.slice(prefix.length).split(".");
  let found = file.messageType.find((each) => each.name === name);
  while (found !== undefined && rest.length > 0) {
    [name, ...rest] = rest;
    found = found.nestedType.find((each) => each.name === name);
  }
  return found !== undefined && found.options?.mapEntry !== true;
}
