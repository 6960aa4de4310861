import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import type { Story } from "./story.ts";

/** A way to call the platform as somebody. */
export type Caller = <S extends DescService>(service: S) => Client<S>;

/** What a step has to work with: the story to tell, and clients such as a customer of the platform would have. */
export type Scene = {
  story: Story;
  /** The customer's server: an API key over gRPC. */
  backend: Caller;
  /** A user's phone: a user token over gRPC. */
  phone(userId: string): Promise<Caller>;
  /** A user's browser: a user token over the Connect protocol, HTTP/1.1. */
  browser(userId: string): Promise<Caller>;
  /** Remembers a notification worth looking back at. */
  remember(name: "held", notificationId: string): void;
  recall(name: "held"): string | undefined;
  /** Begins when the demo did. */
  began: Date;
};

/** One thing to show. Steps follow each other; each brings its own users, so that one that fails fails alone. */
export type Step = { title: string; show(scene: Scene): Promise<void> };

export type Endpoints = { grpcUrl: string; httpUrl: string };

export function callerOver(transport: Transport): Caller {
  return (service) => createClient(service, transport);
}

export function overGrpc({ grpcUrl }: Endpoints, credential: string, tenantId?: string): Transport {
  return createGrpcTransport({ baseUrl: `http://${grpcUrl}`, interceptors: [credentials(credential, tenantId)] });
}

export function overHttp({ httpUrl }: Endpoints, credential: string): Transport {
  return createConnectTransport({ baseUrl: httpUrl, httpVersion: "1.1", interceptors: [credentials(credential)] });
}

function credentials(credential: string, tenantId?: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${credential}`);
    if (tenantId !== undefined) request.header.set("posthorn-tenant", tenantId);
    return next(request);
  };
}

export function openScene(story: Story, endpoints: Endpoints, apiKey: string, began: Date): Scene {
  const backend = callerOver(overGrpc(endpoints, apiKey));
  const tokenOf = async (userId: string) => (await backend(AdminService).createUserToken({ userId })).token;
  const memory = new Map<string, string>();
  return {
    story,
    backend,
    phone: async (userId) => callerOver(overGrpc(endpoints, await tokenOf(userId))),
    browser: async (userId) => callerOver(overHttp(endpoints, await tokenOf(userId))),
    remember: (name, notificationId) => void memory.set(name, notificationId),
    recall: (name) => memory.get(name),
    began,
  };
}

/** The result and how long it took, in milliseconds. */
export async function timed<T>(run: () => Promise<T>): Promise<[T, number]> {
  const began = performance.now();
  return [await run(), performance.now() - began];
}

/** Asks again until it is so; for what no stream announces. */
export async function eventually<T>(
  ask: () => Promise<T>,
  enough: (answer: T) => boolean,
  withinMs = 20_000,
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (enough(answer) || performance.now() > deadline) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
