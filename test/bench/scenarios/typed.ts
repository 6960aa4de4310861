import { create, setExtension, toBinary } from "@bufbuild/protobuf";
import {
  FieldOptionsSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { FieldRulesSchema, field as fieldRules } from "#gen/buf/validate/validate_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import type { Server } from "../posthorn.ts";
import type { Figures, Scenario } from "../scenario.ts";
import { CALLERS, measured } from "./accept.ts";

/** Each way so often, in turn: what changes on the machine meanwhile falls on both. */
const TURNS = 3;

/**
 * What a payload contract costs: `accept` without one and with one for the same data, in turn. The share is by processor
 * time for each notification, which wavers less than the rate; the median of either way.
 */
export const typed: Scenario = {
  name: "typed",
  about: "accept with and without a payload contract for the same data",
  goals: [{ figure: "costShare", better: "less", bar: 0.1, aim: 0.05 }],
  async run(lab) {
    const callers = lab.wishes.callers ?? CALLERS;
    const half = { ...lab, wishes: { ...lab.wishes, seconds: lab.wishes.seconds / 2 } };
    const without: Figures[] = [];
    const judged: Figures[] = [];
    const faults: string[] = [];
    for (let turn = 0; turn < TURNS; turn++) {
      for (const [found, prepare] of [
        [without, async () => undefined],
        [judged, pushContract],
      ] as const) {
        lab.say(`typed: ${prepare === pushContract ? "with" : "without"} a contract, ${turn + 1} of ${TURNS}`);
        const { figures, faults: wrong } = await measured(half, callers, prepare);
        found.push(figures);
        faults.push(...wrong);
      }
    }
    const [rate, rateWithout] = [medianOf(judged, "rate"), medianOf(without, "rate")];
    const [cpuUsEach, cpuWithout] = [medianOf(judged, "cpuUsEach"), medianOf(without, "cpuUsEach")];
    return {
      figures: {
        rate,
        cpuUsEach,
        without: { rate: rateWithout, cpuUsEach: cpuWithout },
        costShare: cpuUsEach / cpuWithout - 1,
        rateShare: 1 - rate / rateWithout,
      },
      peers: {},
      ratios: {},
      faults,
    };
  },
};

/** Of the data that the load carries (client/wire.go), with a rule for each field. */
async function pushContract({ address, apiKey }: Server): Promise<void> {
  const text = (name: string, number: number, rule: { minLen: bigint } | { pattern: string }) => {
    const options = create(FieldOptionsSchema);
    setExtension(options, fieldRules, create(FieldRulesSchema, { type: { case: "string", value: rule } }));
    return { name, number, label: Label.OPTIONAL, type: Type.STRING, options };
  };
  const descriptorSet = create(FileDescriptorSetSchema, {
    file: [
      {
        name: "bench/order.proto",
        package: "bench",
        syntax: "proto3",
        dependency: ["buf/validate/validate.proto"],
        messageType: [
          { name: "Order", field: [text("order", 1, { minLen: 3n }), text("status", 2, { pattern: "^[a-z]{3,20}$" })] },
        ],
      },
    ],
  });
  const client = createClient(TypeService, createGrpcTransport({ baseUrl: `http://${address}` }));
  await client.pushPayload(
    { type: "general", descriptorSet: toBinary(FileDescriptorSetSchema, descriptorSet), message: "bench.Order" },
    { headers: { authorization: `Bearer ${apiKey}` } },
  );
}

function medianOf(figures: readonly Figures[], name: string): number {
  const values = figures.map((each) => Number(each[name])).sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)] ?? Number.NaN;
}
