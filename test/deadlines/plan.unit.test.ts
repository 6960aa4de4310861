import fc from "fast-check";
import { expect, test } from "vitest";
import { plan, type Reminder } from "#src/deadlines/plan.ts";

const minutes = fc.integer({ min: 1, max: 2000 });
const offsets = fc.uniqueArray(minutes, { maxLength: 10 });

test("whatever changes, a deadline ends with one reminder for each of its offsets that is still to come", () => {
  const change = fc.record({ at: fc.integer({ min: 0, max: 5000 }), offsets, wait: fc.integer({ min: 0, max: 300 }) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), (changes) => {
      let stored: Reminder[] = [];
      let now = 0;
      let made = 0;
      /** Times for which a reminder has fired, by offset. */
      const fired = new Set<string>();
      const fire = () => {
        for (const { offsetMs, dueAt } of stored) {
          if (dueAt > now) continue;
          fired.add(`${offsetMs}@${dueAt}`);
        }
      };
      for (const { at, offsets, wait } of changes) {
        now += wait;
        fire();
        const { keep, move, overdue, create, cancel } = plan(stored, at, offsets, now);
        // Nothing is lost, and nothing is in two places.
        expect(
          [...keep, ...cancel, ...overdue, ...move.map(({ reminder }) => reminder)].map(({ id }) => id).toSorted(),
        ).toEqual(stored.map(({ id }) => id).toSorted());
        // What has been due has its worth until the deadline, wherever that moves.
        for (const { offsetMs, dueAt } of cancel)
          expect(!offsets.includes(offsetMs) || dueAt > now || at <= now).toBe(true);
        stored = [
          ...keep,
          ...move.map(({ reminder, dueAt }) => ({ ...reminder, dueAt })),
          ...create.map((each) => ({ ...each, id: `${made++}` })),
        ];
        const coming = stored.filter(({ dueAt }) => dueAt > now).map(({ offsetMs }) => offsetMs);
        expect(coming.toSorted((a, b) => a - b)).toEqual(
          offsets.filter((offset) => at - offset > now).toSorted((a, b) => a - b),
        );
        for (const { dueAt, offsetMs } of stored) expect(dueAt).toBe(at - offsetMs);
        // What is made anew has not fired for that time: else it would have been kept.
        for (const { offsetMs, dueAt } of create) expect(dueAt > now || !fired.has(`${offsetMs}@${dueAt}`)).toBe(true);
      }
    }),
  );
});
