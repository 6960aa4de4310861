import type { Channel, Reason } from "#gen/posthorn/v1/notification_pb.ts";

// What goes on until a notification is answered. Pure: what is to be done comes out as commands.
//
//              due: taken, held or passed on
//                      ┌────┐
//   beginning ──▶ WAITING ◀─┘ ── confirmed ──▶ CONFIRMED
//                   │  │  └───── read ───────▶ READ         unless a confirmation is required
//                   │  └──────── cancelled ──▶ CANCELLED    by the sender; or it has expired, or is no longer wanted
//                   └─────────── due, after the last step ▶ EXHAUSTED
//
// Only WAITING ever changes. Who moves it holds the lock of its notification, so whatever comes first counts.

export const ChainState = { WAITING: 1, CONFIRMED: 2, READ: 3, EXHAUSTED: 4, CANCELLED: 5 } as const;
export type ChainState = (typeof ChainState)[keyof typeof ChainState];

export type Step = { readonly channel: Channel; readonly afterMs: number };

export type Chain = {
  readonly steps: readonly Step[];
  readonly confirmationRequired: boolean;
  readonly state: ChainState;
  /** How many steps have had their turn: the next is `steps[taken]`. */
  readonly taken: number;
  /** When the next has its turn, or the chain is exhausted. Undefined once it has ended. */
  readonly turnAt: Date | undefined;
  /** The same, or later where the recipient's rules hold it. */
  readonly dueAt: Date | undefined;
};

/** What the recipient's rules say about a step's channel at one instant. */
export type Answer =
  | { kind: "deliver" }
  | { kind: "hold"; reason: Reason; until: Date }
  | { kind: "suppress"; reason: Reason };

export type ChainEvent =
  /** `answer`: about the channel of the next step; undefined after the last. Before its time it is nothing. */
  | { kind: "due"; answer: Answer | undefined }
  /** The channel of that step, counted from 1, did not take it; 0: none did that were handed it before the first. */
  | { kind: "failed"; step: number }
  | { kind: "read" }
  | { kind: "confirmed" }
  | { kind: "cancelled"; reason: Reason };

export type Command =
  /** Hand it to the channel. Steps count from 1. */
  | { kind: "handOver"; step: number; channel: Channel }
  | { kind: "held"; step: number; channel: Channel; reason: Reason; until: Date }
  | { kind: "passedOn"; step: number; channel: Channel; reason: Reason }
  | { kind: "unanswered" }
  | { kind: "cancelled"; reason: Reason };

export type Advanced = { chain: Chain; commands: readonly Command[] };

/** A chain as it begins; without steps there is none. */
export function beginning(steps: readonly Step[], confirmationRequired: boolean, now: Date): Chain | undefined {
  const [first] = steps;
  if (first === undefined) return undefined;
  const turnAt = after(first, now);
  return { steps, confirmationRequired, state: ChainState.WAITING, taken: 0, turnAt, dueAt: turnAt };
}

export function advance(chain: Chain, event: ChainEvent, now: Date): Advanced {
  const nothing = { chain, commands: [] };
  if (chain.state !== ChainState.WAITING) return nothing;
  switch (event.kind) {
    case "due":
      return chain.dueAt === undefined || now < chain.dueAt ? nothing : onDue(chain, event.answer, now);
    case "failed":
      // That of an earlier step is no news: the next has had its turn since.
      return event.step === chain.taken ? { chain: { ...chain, turnAt: now, dueAt: now }, commands: [] } : nothing;
    case "read":
      return chain.confirmationRequired ? nothing : { chain: ended(chain, ChainState.READ), commands: [] };
    case "confirmed":
      return { chain: ended(chain, ChainState.CONFIRMED), commands: [] };
    case "cancelled":
      return {
        chain: ended(chain, ChainState.CANCELLED),
        commands: [{ kind: "cancelled", reason: event.reason }],
      };
    default:
      return event satisfies never;
  }
}

function onDue(chain: Chain, answer: Answer | undefined, now: Date): Advanced {
  const next = chain.steps[chain.taken];
  if (next === undefined) return { chain: ended(chain, ChainState.EXHAUSTED), commands: [{ kind: "unanswered" }] };
  const { channel } = next;
  const step = chain.taken + 1;
  switch (answer?.kind) {
    case "hold":
      return {
        chain: { ...chain, dueAt: answer.until },
        commands: [{ kind: "held", step, channel, reason: answer.reason, until: answer.until }],
      };
    case "suppress":
      return {
        chain: { ...chain, taken: step, turnAt: now, dueAt: now },
        commands: [{ kind: "passedOn", step, channel, reason: answer.reason }],
      };
    case "deliver": {
      // After the last its own time counts once more.
      const turnAt = after(chain.steps[step] ?? next, now);
      return {
        chain: { ...chain, taken: step, turnAt, dueAt: turnAt },
        commands: [{ kind: "handOver", step, channel }],
      };
    }
    case undefined:
      return { chain, commands: [] };
    default:
      return answer satisfies never;
  }
}

function ended(chain: Chain, state: ChainState): Chain {
  return { ...chain, state, turnAt: undefined, dueAt: undefined };
}

function after({ afterMs }: Step, now: Date): Date {
  return new Date(now.getTime() + afterMs);
}
