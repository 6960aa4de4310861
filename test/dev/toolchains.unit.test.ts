import { expect, test } from "vitest";
import { GO, JDK, MAVEN, type Machine, OPENSSL, provide, type Tool } from "#src/dev/toolchains.ts";

/** A machine on which some tools are, and apt has some packages, each with the line by which it would install it. */
function machine(here: readonly Tool[], packages: Record<string, string>, more: Partial<Machine> = {}) {
  const installed = new Set(here.map(({ apt }) => apt));
  const calls: string[] = [];
  const lines: string[] = [];
  const all: Machine = {
    isRoot: true,
    isHere: async ({ apt }) => installed.has(apt),
    async apt(args, withinMs) {
      expect(withinMs).toSatisfy(Number.isInteger);
      calls.push(args.filter((arg) => !/^(-qq|-y|--no-install-recommends)$/.test(arg)).join(" "));
      const [name = ""] = args.slice(-1);
      if (args.includes("--simulate") && packages[name] === undefined)
        throw Object.assign(new Error("it exited with 100"), { stderr: `E: Unable to locate package ${name}\n` });
      if (!args.includes("--simulate") && !args.includes("--download-only"))
        for (const each of args.slice(args.indexOf("install") + 1)) installed.add(each);
      return packages[name] ?? "";
    },
    log: (line) => lines.push(line),
    ...more,
  };
  return { all, calls, lines };
}

const DEBIAN = {
  maven: "Inst maven (3.8.7-1)",
  openssl: "Inst openssl (3.0.2)",
  "golang-go": "Inst golang-go (2:1.24~2)",
};

test("what is there is not fetched, and apt not even asked", async () => {
  const { all, calls, lines } = machine([GO, MAVEN], DEBIAN);
  expect(await provide([GO, MAVEN], all)).toEqual([]);
  expect([calls, lines]).toEqual([[], []]);
});

test("what is missing is fetched and installed together", async () => {
  const { all, calls, lines } = machine([GO], DEBIAN);
  expect(await provide([GO, MAVEN, OPENSSL], all)).toEqual([]);
  expect(calls).toEqual([
    "update",
    "--simulate install maven",
    "--simulate install openssl",
    "--download-only install maven openssl",
    "install maven openssl",
  ]);
  expect(lines).toEqual(["installed Maven 3", "installed OpenSSL"]);
});

test("what apt does not have, or only an old one of, is named and keeps nobody else from coming", async () => {
  const { all, calls, lines } = machine([], { ...DEBIAN, "golang-go": "Inst golang-go (2:1.19~1 Debian:12)" });
  expect(await provide([GO, JDK, MAVEN], all)).toEqual([GO, JDK]);
  expect(calls.at(-1)).toBe("install maven");
  expect(lines).toEqual([
    "goes without Go 1.21: golang-go of apt-get is older",
    `goes without a JDK 17: apt-get cannot install ${JDK.apt}: E: Unable to locate package ${JDK.apt}`,
    "installed Maven 3",
  ]);
});

test("who is not root only names them", async () => {
  const { all, calls, lines } = machine([], DEBIAN, { isRoot: false });
  expect(await provide([GO, OPENSSL], all)).toEqual([GO, OPENSSL]);
  expect(calls).toEqual([]);
  expect(lines).toEqual([
    "goes without Go 1.21: not installed, and only root may (apt-get install golang-go)",
    "goes without OpenSSL: not installed, and only root may (apt-get install openssl)",
  ]);
});

test("without apt, or a network, every one is named with what apt said", async () => {
  const none = async () => Promise.reject(new Error("spawn apt-get ENOENT"));
  const { all, lines } = machine([], {}, { apt: none });
  expect(await provide([GO, MAVEN], all)).toEqual([GO, MAVEN]);
  expect(lines).toEqual([
    "goes without Go 1.21: apt-get cannot install golang-go: spawn apt-get ENOENT",
    "goes without Maven 3: apt-get cannot install maven: spawn apt-get ENOENT",
  ]);
});

test("what cannot be fetched in time is named", async () => {
  const { all, lines } = machine([], DEBIAN);
  const { apt } = all;
  const slow: Machine["apt"] = (args, ms) =>
    args.includes("--download-only") ? Promise.reject(new Error("it took too long")) : apt(args, ms);
  expect(await provide([MAVEN], { ...all, apt: slow })).toEqual([MAVEN]);
  expect(lines).toEqual(["goes without Maven 3: it took too long"]);
});
