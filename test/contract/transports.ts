import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { type Caller, grpcCaller, transportCaller } from "../rpc/callers.ts";

/** Where a platform listens. */
export type Ports = { grpc: { port: number }; http: { port: number } };

/** A caller, and whether it can stream both ways: over HTTP/1.1 nothing can. */
export type TransportCaller = Caller & { bidi: boolean };

const VERSIONS = ["1.1", "2"] as const;

/** Every protocol over every version of HTTP that it may be spoken over, by stock clients. The first is what the others are held to. */
export function everyTransport(ports: Ports): [TransportCaller, ...TransportCaller[]] {
  const baseUrl = `http://127.0.0.1:${ports.http.port}`;
  const onGrpcPort = createGrpcTransport({ baseUrl: `http://127.0.0.1:${ports.grpc.port}` });
  const overBoth = VERSIONS.flatMap((httpVersion) => {
    const options = { baseUrl, httpVersion };
    return [
      transportCaller(`grpc-web, HTTP/${httpVersion}`, createGrpcWebTransport(options)),
      transportCaller(`connect json, HTTP/${httpVersion}`, createConnectTransport(options)),
      transportCaller(
        `connect binary, HTTP/${httpVersion}`,
        createConnectTransport({ ...options, useBinaryFormat: true }),
      ),
    ];
  });
  const get = createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true });
  return [
    able(grpcCaller(ports.grpc.port)),
    able(transportCaller("grpc, connect-node", onGrpcPort)),
    able(transportCaller("grpc, HTTP port", createGrpcTransport({ baseUrl }))),
    able(
      transportCaller(
        "grpc-web json, HTTP/2",
        createGrpcWebTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
      ),
    ),
    ...overBoth.map(able),
    able(transportCaller("connect json by GET, HTTP/1.1", get)),
  ];
}

function able(caller: Caller): TransportCaller {
  return Object.assign(caller, { bidi: !caller.name.endsWith("HTTP/1.1") });
}
