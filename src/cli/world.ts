import type { Variables } from "#src/config/read.ts";

/** All a command sees of the process it runs in; tests give their own. */
export type World = {
  env: Variables;
  /** Writes a line to standard output: results, and with --json nothing else. */
  out: (line: string) => void;
  /** Writes a line to standard error: progress, hints, refusals. */
  err: (line: string) => void;
  stdin: AsyncIterable<string | Buffer>;
  /** Aborts on Ctrl-C. */
  signal: AbortSignal;
  now: () => Date;
  random: () => number;
  newId: () => string;
  /** Colours are wanted on standard output. */
  colour: boolean;
  /** Width of the terminal. */
  columns: number;
  /** The checkout's directory for data and for what `npm start` writes down. */
  dataDir: string;
};

/** Ended as the user wanted it, without more to say. */
export const OK = 0;
/** The platform answered and refused. */
export const REFUSED = 1;
/** The command line cannot be understood. */
export const USAGE = 2;
/** Nobody answered, or not in time: the same command may succeed later. */
export const UNREACHABLE = 3;
/** Ctrl-C before the end, as shells number it. Commands that end only by Ctrl-C end with OK. */
export const INTERRUPTED = 130;

/** A command that has said all there is to say, and ends otherwise than well. */
export class Ended extends Error {
  readonly exitCode: number;
  constructor(exitCode: number) {
    super("ended");
    this.exitCode = exitCode;
  }
}

/** A command line that cannot be understood: told without a stack, exit code 2. */
export class UsageError extends Error {
  /** @param fix what to type instead. */
  constructor(message: string, fix?: string) {
    super(fix === undefined ? message : `${message}\n  ${fix}`);
    this.name = "UsageError";
  }
}
