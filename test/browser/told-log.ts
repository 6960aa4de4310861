import type { Told } from "./told.ts";

type Of<K extends string> = Extract<Told, { kind: K }>;

/** All that one page told, in order, and what a test may wait for. */
export type ToldLog = {
  /** Takes what the page says: a Told as JSON. */
  readonly hear: (json: string) => void;
  readonly told: readonly Told[];
  /** The next of this kind after the last one waited for. */
  readonly next: (kind: string) => Promise<Told>;
  /** Resolves when a notification with this title has come. */
  readonly titled: (title: string) => Promise<void>;
  readonly all: <K extends "notification" | "cut">(kind: K) => Of<K>[];
  /** Of the notifications, in the order they came. */
  readonly titles: () => string[];
};

const PATIENCE_MS = 60_000;

export function toldLog(): ToldLog {
  const told: Told[] = [];
  const waiting = new Set<() => void>();
  let taken = 0;

  /** Looks now, and again whenever something is told. */
  const wait = <T>(what: string, find: () => T | undefined) =>
    new Promise<T>((resolve, reject) => {
      const look = () => {
        const found = find();
        if (found === undefined) return;
        clearTimeout(timer);
        waiting.delete(look);
        resolve(found);
      };
      const timer = setTimeout(() => {
        waiting.delete(look);
        reject(new Error(`no ${what} came; the last told: ${JSON.stringify(told.slice(-5))}`));
      }, PATIENCE_MS);
      waiting.add(look);
      look();
    });
  const all = <K extends "notification" | "cut">(kind: K) => told.filter((each): each is Of<K> => each.kind === kind);
  return {
    hear(json) {
      told.push(JSON.parse(json) as Told);
      for (const look of [...waiting]) look();
    },
    told,
    next: (kind) =>
      wait(kind, () => {
        const at = told.findIndex((each, index) => index >= taken && each.kind === kind);
        if (at === -1) return undefined;
        taken = at + 1;
        return told[at];
      }),
    async titled(title) {
      await wait(`"${title}"`, () => told.find((each) => "title" in each && each.title === title));
    },
    all,
    titles: () => all("notification").map(({ title }) => title),
  };
}
