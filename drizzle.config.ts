import { defineConfig } from "drizzle-kit";

// `npx drizzle-kit generate` writes the next migration; partitions, roles and policies are added to it by hand, because
// the schema language has no words for them.
export default defineConfig({
  dialect: "postgresql",
  schema: [
    "./src/store/schema/tenants.ts",
    "./src/store/schema/users.ts",
    "./src/store/schema/notifications.ts",
    "./src/store/schema/schedules.ts",
    "./src/store/schema/batches.ts",
    "./src/store/schema/escalations.ts",
    "./src/store/schema/payloads.ts",
  ],
  out: "./src/store/migrations",
});
