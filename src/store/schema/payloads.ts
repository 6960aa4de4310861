import { integer, pgTable, primaryKey, text, uuid } from "drizzle-orm/pg-core";
import { bytea, instant } from "./columns.ts";

/** Versions of the types' payload contracts. Rows never change; they go with their type. */
export const payloadContracts = pgTable(
  "payload_contracts",
  {
    tenantId: uuid("tenant_id").notNull(),
    type: text("type").notNull(),
    version: integer("version").notNull(),
    /** Its name wherever it is kept ready: a type that is deleted and created anew begins with version 1 again. */
    id: uuid("id").notNull(),
    /** Full name of the message. */
    message: text("message").notNull(),
    /** Encoded google.protobuf.FileDescriptorSet, checked and without source information. */
    descriptorSet: bytea("descriptor_set").notNull(),
    /** SHA-256 of the descriptors: whether it is what is current already. */
    digest: bytea("digest").notNull(),
    createdAt: instant("created_at").notNull(),
    createdBy: text("created_by").notNull(),
  },
  (t) => [primaryKey({ columns: [t.tenantId, t.type, t.version] })],
);
