import { customType, timestamp } from "drizzle-orm/pg-core";

/** Binary columns hold encoded protobuf messages, hashes and sealed secrets. */
export const bytea = customType<{ data: Uint8Array; driverData: Uint8Array }>({
  dataType: () => "bytea",
});

/** Milliseconds are what the contract's timestamps and UUIDv7 hold; more would not survive a round trip. */
export const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: "date" });
