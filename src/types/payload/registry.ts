import { createFileRegistry, createRegistry, type DescFile, type Registry } from "@bufbuild/protobuf";
import type { FileDescriptorProto } from "@bufbuild/protobuf/wkt";
import { OWN_FILES } from "./own-files.ts";

/**
 * Builds files of which each comes after those it imports, on our own well-known ones, which all share: they would be
 * most of the memory, and of the time.
 */
export function registryOf(files: readonly FileDescriptorProto[]): Registry {
  const built = new Map<string, DescFile>();
  const reached = new Map<string, ReadonlySet<string>>();
  for (const file of files) {
    const all = new Set(file.dependency.flatMap((name) => [name, ...(reached.get(name) ?? ownReach(name))]));
    reached.set(file.name, all);
    // The library would follow the imports of imports without end, were these not given at once and by themselves.
    // Its prototype has what is not set, such as the syntax of proto2.
    const flat: FileDescriptorProto = Object.assign(Object.create(Object.getPrototypeOf(file)), file, {
      dependency: [...all],
      publicDependency: [],
      weakDependency: [],
    });
    const registry = createFileRegistry(flat, (name) => {
      const found = built.get(name) ?? OWN_FILES.get(name);
      return found && { ...found, dependencies: [] };
    });
    const desc = registry.getFile(file.name);
    if (desc !== undefined) built.set(file.name, desc);
  }
  return createRegistry(...[...own(reached), ...built.values()].map((file) => ({ ...file, dependencies: [] })));
}

/** What an own file imports. */
function ownReach(name: string): string[] {
  const file = OWN_FILES.get(name);
  return file?.proto.dependency.flatMap((each) => [each, ...ownReach(each)]) ?? [];
}

function own(reached: ReadonlyMap<string, ReadonlySet<string>>): DescFile[] {
  const names = new Set([...reached.values()].flatMap((all) => [...all]));
  return [...OWN_FILES].flatMap(([name, file]) => (names.has(name) ? [file] : []));
}
