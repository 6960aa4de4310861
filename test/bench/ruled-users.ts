import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import postgres from "postgres";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Tenant } from "./posthorn.ts";

const DAY_MINUTES = 24 * 60;

/**
 * Gives `count` users every rule there is, none of which holds a plain notification back now: a zone, quiet hours and a
 * period of do-not-disturb on the other side of the day, a digest that is immediate, batching of what is batchable, and an
 * hourly cap of a hundred, which counts each all the same.
 *
 * One user is set as any caller would; the others are copied from that row, because ten thousand calls take longer than
 * what is measured.
 */
export async function ruledUsers(
  databaseUrl: string,
  { tenantId, apiKey, address }: Tenant & { address: string },
  count: number,
): Promise<void> {
  const baseUrl = `http://${address}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${apiKey}`);
        return next(request);
      },
    ],
  });
  const { updatePreferences } = createClient(PreferencesService, transport);
  const [startTime, endTime] = [at(new Date(), 11 * 60), at(new Date(), 13 * 60)];
  const preferences = {
    timeZone: "UTC",
    language: "en",
    minimumPriority: Priority.LOW,
    weekendsEnabled: true,
    channels: { inApp: true, email: true, push: true },
    categories: { general: { enabled: true } },
    types: { general: { digestMode: Digest_Mode.IMMEDIATE } },
    quietHours: { enabled: true, startTime, endTime },
    doNotDisturb: { enabled: true, periods: [{ startTime, endTime }] },
    batching: { enabled: true },
    hourlyCap: { enabled: true, maxPerHour: 100 },
    digest: { mode: Digest_Mode.IMMEDIATE },
    grouping: { enabled: true },
  };
  await updatePreferences({ userId: TEMPLATE, preferences, reason: "a benchmark" }).finally(() =>
    sessionManager.abort(),
  );
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await sql`
      insert into preferences (tenant_id, user_id, document, revision, updated_at)
      select tenant_id, 'u' || n, document, revision, updated_at
      from preferences cross join generate_series(0, ${count - 1}::int) n
      where tenant_id = ${tenantId} and user_id = ${TEMPLATE}`;
    await sql`vacuum (analyze) preferences`;
  } finally {
    await sql.end({ timeout: 2 });
  }
}

const TEMPLATE = "template";

/** "HH:MM" in UTC, so many minutes from then. */
function at(now: Date, minutes: number): string {
  const all = (now.getUTCHours() * 60 + now.getUTCMinutes() + minutes) % DAY_MINUTES;
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(Math.floor(all / 60))}:${two(all % 60)}`;
}
