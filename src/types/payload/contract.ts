import { create, type DescMessage, fromBinary, getOption, type Registry, toBinary, toJson } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { oneof as oneofOption } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { DescriptorFault, named } from "./descriptor-fault.ts";
import { storedFiles } from "./descriptor-set.ts";
import type { Judge, Judging } from "./judging.ts";
import { OWN_FILES } from "./own-files.ts";
import { type PriceOf, pricing } from "./pricing.ts";
import { registryOf } from "./registry.ts";
import { UnusableContract } from "./unusable.ts";

/** What payloads are read and judged by. */
export type Compiled = {
  readonly desc: DescMessage;
  readonly registry: Registry;
  readonly judge: Judge;
  /** What it would take to judge one. */
  readonly priceOf: PriceOf;
};

/** A version of a type's payload contract. */
export type Contract = Compiled & { readonly id: string; readonly version: number };

export type StoredContract = { id: string; version: number; message: string; descriptorSet: Uint8Array };

/**
 * Builds a contract of a type that was checked when it was stored: by another server perhaps, whose libraries took what
 * ours refuse. Throws UnusableContract.
 */
export function compileContract(type: string, stored: StoredContract, judging: Judging): Contract {
  const { id, version, message, descriptorSet } = stored;
  try {
    return { id, version, ...compile(storedFiles(descriptorSet), message, judging) };
  } catch (error) {
    throw new UnusableContract(type, version, error);
  }
}

/** Only what it declares, which asks less of the libraries; undefined where they refuse even that. */
export function describeContract({ message, descriptorSet }: StoredContract): DescMessage | undefined {
  try {
    return registryOf(storedFiles(descriptorSet)).getMessage(message);
  } catch {
    return undefined;
  }
}

/** Builds what `message` is, and makes sure that payloads can be read and judged by it. Throws DescriptorFault. */
export function compile(files: readonly FileDescriptorProto[], message: string, judging: Judging): Compiled {
  const registry = attempt("cannot be built", () => registryOf(files));
  const desc = registry.getMessage(message);
  if (desc === undefined) throw new DescriptorFault(`declares no message ${named(message)}`);
  const { priceOf, alone } = attempt("has rules that cannot be read", () => pricing(desc, registry));
  attempt("cannot be used", () => tryOut(desc, registry));
  const judge = judging.judgeOf({ registry, alone });
  const result = judge(desc, create(desc));
  if (result.kind === "error" && result.error.name === "CompilationError") {
    throw new DescriptorFault(`has a rule that cannot be used: ${said(result.error)}`);
  }
  return { desc, registry, judge, priceOf };
}

/**
 * Reads and writes an empty one of each message that is reached, and reads the rules that have no price, so that what fails
 * fails here.
 */
function tryOut(root: DescMessage, registry: Registry): void {
  const seen = new Set<DescMessage>();
  const waiting = [root];
  for (let desc = waiting.pop(); desc !== undefined; desc = waiting.pop()) {
    if (seen.has(desc) || OWN_FILES.has(desc.file.proto.name)) continue;
    seen.add(desc);
    fromBinary(desc, new Uint8Array());
    toJson(desc, create(desc), { registry });
    for (const oneof of desc.oneofs) getOption(oneof, oneofOption);
    for (const field of desc.fields) {
      if ("getDefaultValue" in field) field.getDefaultValue?.();
      if (field.message !== undefined) waiting.push(field.message);
    }
  }
}

/** The set with what it needs of ours, for whoever wants to build it. */
export function completeSet(descriptorSet: Uint8Array): Uint8Array {
  const files = storedFiles(descriptorSet);
  const ordered = new Set<FileDescriptorProto>();
  const visit = (name: string): void => {
    const file = OWN_FILES.get(name)?.proto;
    if (file === undefined || ordered.has(file)) return;
    file.dependency.forEach(visit);
    ordered.add(file);
  };
  for (const { dependency } of files) dependency.forEach(visit);
  return toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [...ordered, ...files] }));
}

function attempt<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof DescriptorFault) throw error;
    throw new DescriptorFault(`${what}: ${said(error)}`);
  }
}

function said(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.length > 200 ? `${text.slice(0, 200)}…` : text).toWellFormed();
}
