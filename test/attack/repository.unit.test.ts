import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const LARGEST = 2 * 2 ** 20;

/** What is known to git, or would be after `git add`; undefined outside a checkout. */
function filesOfRepository(): string[] | undefined {
  const { status, stdout } = spawnSync("git", ["ls-files", "-co", "--exclude-standard", "-z"], { cwd: root });
  return status === 0 ? stdout.toString("utf8").split("\0").filter(Boolean) : undefined;
}

/** Forms that only real secrets have, most of them given by who issues them. */
const SECRETS: Record<string, RegExp> = {
  "a private key": /-----BEGIN (?:RSA |EC |OPENSSH |DSA |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----/,
  "an AWS key": /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/,
  "a GitHub token": /\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b/,
  "an npm token": /\bnpm_[A-Za-z0-9]{36}\b/,
  "a Slack token": /\bxox[abprs]-[A-Za-z0-9-]{20,}/,
  "a Stripe key": /\b[rs]k_live_[A-Za-z0-9]{20,}\b/,
  "a Google key": /\bAIza[A-Za-z0-9_-]{35}\b/,
  "a SendGrid key": /\bSG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}/,
  "a Twilio key": /\b(?:SK|AC)[0-9a-f]{32}\b/,
  "a webhook secret": /\bwhsec_[A-Za-z0-9+/]{24,}/,
  "a NATS seed": /\bS[UOANC][A-Z2-7]{56}\b/,
  "an API key of ours": /\bphk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}\b/,
  "a signed token": /\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}/,
  "a password in an URL":
    /\b(?:postgres(?:ql)?|redis|amqp|nats):\/\/[^\s:@/"'`$<{]+:(?!password|…|secret|p@|\*)[^\s:@/"'`$<{]{12,}@/,
};

function secretsIn(text: string): string[] {
  return Object.entries(SECRETS)
    .filter(([, form]) => form.test(text))
    .map(([name]) => name);
}

test("34: no file of the repository holds a secret", () => {
  const files = filesOfRepository();
  if (files === undefined) return expect(root).toBeTruthy(); // A copy without git has nothing that could be committed.
  expect(files.length).toBeGreaterThan(100);
  const found = files.flatMap((file) => {
    const path = join(root, file);
    if (/(^|\/)\.env($|\.)|\.(pem|key|p12|pfx|creds|nk)$/.test(file)) return [`${file}: a file of secrets`];
    const info = statSync(path, { throwIfNoEntry: false });
    if (info === undefined || !info.isFile() || info.size > LARGEST) return [];
    return secretsIn(readFileSync(path, "utf8")).map((name) => `${file}: ${name}`);
  });
  expect(found).toEqual([]);
});

test("34: the scan finds what it looks for", () => {
  const made = (prefix: string, length: number, letters = "a") => prefix + letters.repeat(length);
  expect(secretsIn(`-----BEGIN ${"PRIVATE"} KEY-----`)).toEqual(["a private key"]);
  expect(secretsIn(made("AKIA", 16, "B"))).toEqual(["an AWS key"]);
  expect(secretsIn(made("ghp_", 36))).toEqual(["a GitHub token"]);
  expect(secretsIn(made(`${made("phk_", 12)}_`, 43))).toEqual(["an API key of ours"]);
  expect(secretsIn(`${made("eyJ", 20)}.${made("eyJ", 20)}.${made("", 43)}`)).toEqual(["a signed token"]);
  expect(secretsIn(`postgres://app:${made("", 20)}@db/x`)).toEqual(["a password in an URL"]);
});

test("6: secrets are compared in constant time", () => {
  const folder = join(root, "src/auth");
  const source = (name: string) => readFileSync(join(folder, name), "utf8");
  expect(source("api-key.ts")).toMatch(/timingSafeEqual\(a, b\)/);
  for (const name of ["authenticator.ts", "by-api-key.ts", "api-keys.ts"]) {
    // Hashes and secrets meet in sameHash only.
    expect(source(name)).not.toMatch(
      /(?:hash|secret)\w*\s*[!=]==(?!\s*(?:undefined|null))|[!=]==\s*\w*(?:hash|secret)\b/i,
    );
  }
});
