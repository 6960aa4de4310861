import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import { type NotificationType, NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";

/** A catalogue that cannot be used, with everything that is wrong with it, one line each. */
export class CatalogueError extends Error {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(faults.join("\n"));
    this.name = "CatalogueError";
    this.faults = faults;
  }
}

/**
 * Reads a catalogue: a JSON list of posthorn.v1.NotificationType in protobuf's JSON (the presets beside this file are
 * examples). Throws CatalogueError with every fault, each naming the type it is in.
 */
export function parseCatalogue(json: JsonValue): NotificationType[] {
  if (!Array.isArray(json)) throw new CatalogueError(["A catalogue is a JSON list of notification types."]);
  const validator = createValidator();
  const faults: string[] = [];
  const keys = new Set<string>();
  const types: NotificationType[] = [];
  for (const [index, item] of json.entries()) {
    const name = nameOf(index, item);
    let type: NotificationType;
    try {
      type = fromJson(NotificationTypeSchema, item);
    } catch (error) {
      faults.push(...misreadFields(item, error as Error).map((fault) => `${name}: ${fault}`));
      continue;
    }
    const result = validator.validate(NotificationTypeSchema, type);
    if (result.kind === "error") throw result.error;
    for (const { field, message } of result.violations ?? [])
      faults.push(`${name}: ${pathToString(field)}: ${message}`);
    if (keys.has(type.key)) faults.push(`${name}: key: is in the list before`);
    keys.add(type.key);
    types.push(type);
  }
  if (faults.length > 0) throw new CatalogueError(faults);
  return types;
}

/** The decoder stops at the first fault and does not always say where: each field by itself tells more. */
function misreadFields(item: JsonValue, whole: Error): string[] {
  if (typeof item !== "object" || item === null || Array.isArray(item)) return [whole.message];
  const faults = Object.entries(item).flatMap(([field, value]) => {
    try {
      fromJson(NotificationTypeSchema, { [field]: value });
      return [];
    } catch (error) {
      return [`${field}: ${(error as Error).message}`];
    }
  });
  return faults.length > 0 ? faults : [whole.message];
}

function nameOf(index: number, item: JsonValue): string {
  const key = typeof item === "object" && item !== null && !Array.isArray(item) ? item.key : undefined;
  return typeof key === "string" && key !== "" ? `type ${index + 1} (${key})` : `type ${index + 1}`;
}
