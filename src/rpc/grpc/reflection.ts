import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "#gen/google/rpc/status_pb.ts";
import { file_grpc_health_v1_health, Health } from "#gen/grpc/health/v1/health_pb.ts";
import type { Service } from "../call.ts";

/** What it reads of a package definition. */
type Definition = ConstructorParameters<typeof ReflectionService>[0];

/** What callers meet without naming it: the details of errors, and the health of services. */
const ALONGSIDE = [file_google_rpc_status, file_google_rpc_error_details, file_grpc_health_v1_health];

/** Server reflection (v1 and v1alpha) over the true descriptors of the contract, imports included. */
export function addReflection(server: Server, services: readonly Service[]): void {
  const files = new Map<string, Buffer>();
  const collect = ({ proto, dependencies }: DescFile) => {
    if (files.has(proto.name)) return;
    files.set(proto.name, Buffer.from(toBinary(FileDescriptorProtoSchema, proto)));
    for (const each of dependencies) collect(each);
  };
  for (const { descriptor } of services) collect(descriptor.file);
  for (const file of ALONGSIDE) collect(file);
  const definition = { contract: { fileDescriptorProtos: [...files.values()] } } as unknown as Definition;
  const names = [Health, ...services.map(({ descriptor }) => descriptor)].map(({ typeName }) => typeName);
  const reflection = new ReflectionService(definition, { services: names });
  keepOptions(reflection, files);
  reflection.addToServer(server);
}

/**
 * @grpc/reflection 1.0 encodes the descriptors again and loses the options it does not know, the rules of validation
 * among them. This puts the true bytes in their place. Does nothing if a later version keeps them elsewhere.
 */
function keepOptions(reflection: object, files: ReadonlyMap<string, Buffer>): void {
  for (const version of ["v1", "v1Alpha"]) {
    const encodings: unknown = Reflect.get(Object(Reflect.get(reflection, version)), "fileEncodings");
    if (!(encodings instanceof Map)) continue;
    for (const file of encodings.keys()) {
      const bytes = files.get(file.name);
      if (bytes !== undefined) encodings.set(file, bytes);
    }
  }
}
