import type { Exposition } from "#src/telemetry/exposition.ts";
import type { HttpRequest, HttpResponse } from "./dual.ts";

/** What a dependency check found, by name: `{ postgres: true, nats: false }`. */
export type Readiness = () => Promise<Readonly<Record<string, boolean>>>;

export type ProbeDeps = {
  /** Asked at every `/readyz`; must answer quickly and not throw. */
  readonly ready: Readiness;
  /** Served at `/metrics`; undefined: not served. */
  readonly metrics: Exposition | undefined;
  readonly draining: () => boolean;
};

/**
 * `/healthz`: this process runs. `/readyz`: it wants traffic; 503 with what is missing, or while it drains. `/metrics`
 * for Prometheus. True: the request was one of them.
 */
export function probes(deps: ProbeDeps): (path: string, request: HttpRequest, response: HttpResponse) => boolean {
  const answer: Record<string, (response: HttpResponse, request: HttpRequest) => Promise<void>> = {
    "/healthz": async (response) => send(response, 200, "text/plain", "ok\n"),
    "/readyz": async (response) => {
      const checks = { ...(await deps.ready()), ...(deps.draining() ? { draining: false } : {}) };
      const ready = Object.values(checks).every(Boolean);
      send(response, ready ? 200 : 503, "application/json", JSON.stringify({ ready, checks }));
    },
  };
  const { metrics } = deps;
  if (metrics !== undefined)
    answer["/metrics"] = async (response, request) => {
      const { contentType, body } = await metrics(request.headers.accept);
      send(response, 200, contentType, body);
    };
  return (path, request, response) => {
    const reply = Object.hasOwn(answer, path) ? answer[path] : undefined;
    if (reply === undefined) return false;
    if (request.method !== "GET" && request.method !== "HEAD") send(response, 405, "text/plain", "GET only\n");
    else reply(response, request).catch(() => send(response, 500, "text/plain", "failed\n"));
    return true;
  };
}

export function send(response: HttpResponse, status: number, contentType: string, body: string): void {
  if (response.headersSent) return;
  response.statusCode = status;
  response.setHeader("Content-Type", contentType);
  response.setHeader("Cache-Control", "no-store");
  response.end(body);
}
