import postgres from "postgres";

/**
 * Switches the hourly cap off in a tenant's defaults, so that a test may send its users what it likes: without an audit
 * entry, and whatever roles the node has. Call it before anything of the tenant's is read.
 */
export async function withoutCap<T extends { tenantId: string }>(databaseUrl: string, tenant: T): Promise<T> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await sql`
      insert into default_preferences (tenant_id, document, revision, updated_at)
      values (${tenant.tenantId}, ${sql.json({ hourlyCap: { enabled: false } })}, 1, now())`;
  } finally {
    await sql.end();
  }
  return tenant;
}
