import { execFile } from "node:child_process";

/** Runs a program to its end. @throws with the end of what it said when it fails or cannot be run. */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd: string; env?: NodeJS.ProcessEnv; signal: AbortSignal },
): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { ...options, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
      if (error === null) return resolve();
      const said = `${stdout}\n${stderr}`.trim().split("\n").slice(-6).join("\n");
      reject(new Error(`${command} ${args[0] ?? ""}: ${said || error.message}`, { cause: error }));
    });
  });
}
