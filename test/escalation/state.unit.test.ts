import fc from "fast-check";
import { expect, test } from "vitest";
import { Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { planFor } from "#src/escalation/plan.ts";
import {
  type Answer,
  advance,
  beginning,
  type Chain,
  type ChainEvent,
  ChainState,
  type Command,
} from "#src/escalation/state.ts";

const START = Date.UTC(2026, 0, 7, 12);
const at = (seconds: number) => new Date(START + seconds * 1000);
const STEPS = [
  { channel: Channel.EMAIL, afterMs: 10_000 },
  { channel: Channel.SMS, afterMs: 60_000 },
];
const begun = (confirmationRequired = false) => beginning(STEPS, confirmationRequired, at(0)) as Chain;
const deliver: ChainEvent = { kind: "due", answer: { kind: "deliver" } };

function run(chain: Chain, events: readonly [seconds: number, event: ChainEvent][]) {
  const commands: Command[] = [];
  let current = chain;
  for (const [seconds, event] of events) {
    const advanced = advance(current, event, at(seconds));
    current = advanced.chain;
    commands.push(...advanced.commands);
  }
  return { chain: current, commands };
}

test("without steps there is nothing to go on", () => expect(beginning([], true, at(0))).toBeUndefined());

test("step follows step, the last is waited for once more, and then nobody has answered", () => {
  const { chain, commands } = run(begun(), [
    [9, deliver],
    [10, deliver],
    [69, deliver],
    [70, deliver],
    [129, { kind: "due", answer: undefined }],
    [130, { kind: "due", answer: undefined }],
  ]);
  expect(commands).toEqual([
    { kind: "handOver", step: 1, channel: Channel.EMAIL },
    { kind: "handOver", step: 2, channel: Channel.SMS },
    { kind: "unanswered" },
  ]);
  expect(chain).toMatchObject({ state: ChainState.EXHAUSTED, dueAt: undefined, turnAt: undefined });
});

test("a hold puts the step off and keeps its turn; a channel that cannot be used gives it to the next", () => {
  const held = run(begun(), [
    [10, { kind: "due", answer: { kind: "hold", reason: Reason.QUIET_HOURS, until: at(500) } }],
  ]);
  expect(held.chain).toMatchObject({ taken: 0, turnAt: at(10), dueAt: at(500) });
  const passed = run(held.chain, [
    [500, { kind: "due", answer: { kind: "suppress", reason: Reason.CHANNEL_DISABLED } }],
    [500, deliver],
  ]);
  expect(passed.commands).toEqual([
    { kind: "passedOn", step: 1, channel: Channel.EMAIL, reason: Reason.CHANNEL_DISABLED },
    { kind: "handOver", step: 2, channel: Channel.SMS },
  ]);
});

test("a channel that fails gives its turn to the next at once, but not when the next has had it", () => {
  const first = run(begun(), [[10, deliver]]).chain;
  expect(advance(first, { kind: "failed", step: 1 }, at(20)).chain.dueAt).toEqual(at(20));
  const second = run(first, [[70, deliver]]).chain;
  expect(advance(second, { kind: "failed", step: 1 }, at(80)).chain).toBe(second);
});

test("reading is enough unless a confirmation is required", () => {
  expect(advance(begun(), { kind: "read" }, at(1)).chain.state).toBe(ChainState.READ);
  expect(advance(begun(true), { kind: "read" }, at(1)).chain.state).toBe(ChainState.WAITING);
  expect(advance(begun(true), { kind: "confirmed" }, at(1)).chain.state).toBe(ChainState.CONFIRMED);
});

/** The same in other words: what a person would keep on paper. */
class Paper {
  open = true;
  end: ChainState = ChainState.WAITING;
  handed: number[] = [];
  next = 1;
  due: number;
  readonly #steps: number[];
  readonly #required: boolean;
  constructor(steps: number[], required: boolean) {
    this.#steps = steps;
    this.#required = required;
    this.due = steps[0] ?? 0;
  }
  #close(end: ChainState): void {
    this.open = false;
    this.end = end;
  }
  tell(seconds: number, event: ChainEvent): void {
    if (!this.open) return;
    if (event.kind === "confirmed") this.#close(ChainState.CONFIRMED);
    else if (event.kind === "cancelled") this.#close(ChainState.CANCELLED);
    else if (event.kind === "read") {
      if (!this.#required) this.#close(ChainState.READ);
    } else if (event.kind === "failed") {
      if (event.step === this.next - 1) this.due = seconds;
    } else if (seconds >= this.due) this.#turn(seconds, event.answer);
  }
  #turn(seconds: number, answer: Answer | undefined): void {
    if (this.next > this.#steps.length) {
      this.#close(ChainState.EXHAUSTED);
      return;
    }
    if (answer?.kind === "hold") {
      this.due = (answer.until.getTime() - START) / 1000;
      return;
    }
    if (answer?.kind === "suppress") this.due = seconds;
    else {
      this.handed.push(this.next);
      this.due = seconds + (this.#steps[this.next] ?? this.#steps[this.next - 1] ?? 0);
    }
    this.next++;
  }
}

type Making = (now: number) => ChainEvent;
const event: fc.Arbitrary<Making> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Making>(() => deliver) },
  fc.nat(100).map<Making>((more) => (now) => ({
    kind: "due",
    answer: { kind: "hold", reason: Reason.WEEKEND, until: at(now + 1 + more) },
  })),
  fc.constant<Making>(() => ({ kind: "due", answer: { kind: "suppress", reason: Reason.CHANNEL_DISABLED } })),
  fc.integer({ min: 0, max: 5 }).map<Making>((step) => () => ({ kind: "failed", step })),
  fc
    .constantFrom<ChainEvent>({ kind: "read" }, { kind: "confirmed" }, { kind: "cancelled", reason: Reason.CANCELLED })
    .map<Making>((each) => () => each),
);

test("whatever happens, each step is handed over once and in order, and nothing after the first answer", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 10, max: 300 }), { minLength: 1, maxLength: 5 }),
      fc.boolean(),
      fc.array(fc.tuple(fc.nat(400), event), { maxLength: 40 }),
      (steps, required, happenings) => {
        const paper = new Paper(steps, required);
        let chain = beginning(
          steps.map((seconds) => ({ channel: Channel.EMAIL, afterMs: seconds * 1000 })),
          required,
          at(0),
        ) as Chain;
        const handed: number[] = [];
        let now = 0;
        for (const [later, make] of happenings) {
          now += later;
          const happening = make(now);
          const ended = chain.state !== ChainState.WAITING;
          const { chain: next, commands } = advance(chain, happening, at(now));
          if (ended) expect([next, commands]).toEqual([chain, []]);
          chain = next;
          for (const command of commands) if (command.kind === "handOver") handed.push(command.step);
          paper.tell(now, happening);
        }
        expect(handed).toEqual(paper.handed);
        expect(chain.state).toBe(paper.end);
        expect(handed).toEqual([...new Set(handed)].toSorted((a, b) => a - b));
        expect(chain.dueAt?.getTime()).toBe(paper.open ? at(paper.due).getTime() : undefined);
      },
    ),
    { numRuns: 500 },
  );
});

test("the request's escalation stands above the type's, and that above the recipient's wish", () => {
  const wish = { delivery: { method: Channel.IN_APP, fallbacks: [Channel.PUSH], confirmationRequired: true } };
  const none = { delivery: { ...wish.delivery, confirmationRequired: false } };
  const ofType = { steps: STEPS, confirmationRequired: false };
  const plain = { escalation: null, priority: Priority.NORMAL };
  const critical = { ...plain, priority: Priority.CRITICAL };
  const empty = { escalation: new Uint8Array(), priority: Priority.CRITICAL };
  const asking = { escalation: Uint8Array.of(0x10, 1), priority: Priority.NORMAL };
  const own = [{ channel: Channel.PUSH, afterMs: 300_000 }];
  expect(planFor(plain, undefined, wish)).toBeUndefined();
  expect(planFor(critical, undefined, none)).toBeUndefined();
  expect(planFor(critical, undefined, wish)).toEqual({ steps: own, confirmationRequired: true });
  expect(planFor(plain, ofType, wish)).toEqual(ofType);
  expect(planFor(critical, ofType, wish)).toEqual({ steps: STEPS, confirmationRequired: true });
  expect(planFor(empty, ofType, wish)).toBeUndefined();
  expect(planFor(asking, ofType, none)).toEqual({ steps: own, confirmationRequired: true });
});
