import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server, ServerDuplexStream, ServiceDefinition } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "#gen/google/rpc/status_pb.ts";
import { file_grpc_health_v1_health, Health } from "#gen/grpc/health/v1/health_pb.ts";
import type { Service } from "../call.ts";
import { room } from "../room.ts";
import { cutOff, endsWithinMessage } from "./calls.ts";
import { endWith, resetStream } from "./endings.ts";

/** What it reads of a package definition. */
type Definition = ConstructorParameters<typeof ReflectionService>[0];

/** What callers meet without naming it: the details of errors, and the health of services. */
const ALONGSIDE = [file_google_rpc_status, file_google_rpc_error_details, file_grpc_health_v1_health];

type Call = ServerDuplexStream<unknown, unknown>;
type Handlers = { ServerReflectionInfo(call: Call): void };

/**
 * Server reflection (v1 and v1alpha) over the true descriptors of the contract, imports included.
 *
 * @param stallMs how long a caller may leave answers unread
 */
export function addReflection(server: Server, services: readonly Service[], stallMs: number): void {
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
  const addService = (definition: ServiceDefinition, { ServerReflectionInfo }: Handlers) =>
    server.addService(definition, {
      ServerReflectionInfo: (call: Call) => ServerReflectionInfo(inStep(call, stallMs)),
    });
  reflection.addToServer({ addService } as unknown as Server);
}

/**
 * The library answers whatever comes, and takes any end for a good one. From this call nothing comes while answers wait to
 * be read, and a request that ends within a message is refused.
 */
function inStep(call: Call, stallMs: number): Call {
  const write = call.write.bind(call) as (answer: unknown) => boolean;
  call.write = (answer: unknown) => {
    const goesOn = write(answer);
    if (!goesOn) {
      call.pause();
      void room(call, stallMs).then((read) => (read ? call.resume() : resetStream(call)));
    }
    return goesOn;
  };
  const end = call.end.bind(call);
  call.end = () => {
    // The refusal ends it once more.
    call.end = end;
    if (!endsWithinMessage(call)) return end();
    endWith(call, cutOff());
    return call;
  };
  return call;
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
