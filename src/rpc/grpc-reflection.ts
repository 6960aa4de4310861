import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import type { Service } from "./call.ts";

/** Server reflection (v1 and v1alpha) over the true descriptors of the contract, imports included. */
export function addReflection(server: Server, services: readonly Service[]): void {
  const files = new Map<string, DescFile>();
  const collect = (file: DescFile) => {
    if (files.has(file.proto.name)) return;
    files.set(file.proto.name, file);
    for (const each of file.dependencies) collect(each);
  };
  for (const { descriptor } of services) collect(descriptor.file);
  const fileDescriptorProtos = [...files.values()].map((file) =>
    Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)),
  );
  // It reads nothing else of a package definition.
  const definition = { contract: { fileDescriptorProtos } } as unknown as ConstructorParameters<
    typeof ReflectionService
  >[0];
  const names = services.map(({ descriptor }) => descriptor.typeName);
  new ReflectionService(definition, { services: names }).addToServer(server);
}
