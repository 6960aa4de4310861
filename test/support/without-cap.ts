import postgres from "postgres";

/**
 * Switches the hourly cap off for a tenant, so that a test may send its users what it likes. It is as if the built-in value
 * were another: no revision, no audit entry. Call it before anything of the tenant's is read.
 */
export async function withoutCap<T extends { tenantId: string }>(databaseUrl: string, tenant: T): Promise<T> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await sql`
      insert into default_preferences (tenant_id, document, revision, updated_at)
      values (${tenant.tenantId}, ${sql.json({ hourlyCap: { enabled: false } })}, 0, now())`;
  } finally {
    await sql.end();
  }
  return tenant;
}
