import type { JsonValue } from "@bufbuild/protobuf";
import { type NotificationType, Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import { parseCatalogue } from "./parse-catalogue.ts";
import crm from "./presets/crm.json" with { type: "json" };
import jobs from "./presets/jobs.json" with { type: "json" };
import orders from "./presets/orders.json" with { type: "json" };
import taskmaster from "./presets/taskmaster.json" with { type: "json" };

const FILES = new Map<Preset, JsonValue>([
  [Preset.TASKMASTER, taskmaster],
  [Preset.JOBS, jobs],
  [Preset.CRM, crm],
  [Preset.ORDERS, orders],
]);

/** The types of a ready-made catalogue; undefined when there is no such. */
export function presetTypes(preset: Preset): NotificationType[] | undefined {
  const file = FILES.get(preset);
  return file === undefined ? undefined : parseCatalogue(file);
}
