import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { configDocument, configHelp, describeConfig } from "#src/config/describe.ts";
import { required } from "#src/config/option.ts";
import { listedOptions } from "#src/config/options.ts";
import { ConfigError } from "#src/config/problem.ts";
import { readConfig } from "#src/config.ts";
import { deployment } from "./config-support.ts";

const names = listedOptions.flatMap(({ option }) => [option.name, ...option.aliases]);
const tempting = fc.constantFrom(
  "",
  "0",
  "-1",
  "true",
  "1e9",
  "NaN",
  "*",
  ",",
  "a,b",
  "::1",
  "[",
  "http://",
  "redis://%",
  "\0",
);
const garbage = fc.oneof(fc.string({ unit: "binary" }), fc.string(), tempting, fc.webUrl(), fc.integer().map(String));

describe("whatever the environment holds", () => {
  it("reading it gives a configuration or a ConfigError, nothing else", () => {
    const environment = fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string()), garbage, { maxKeys: 20 });
    fc.assert(
      fc.property(environment, (env) => {
        try {
          describeConfig(readConfig(env));
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
          expect((error as ConfigError).problems.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("one bad variable among good ones is reported, and only it", () => {
    fc.assert(
      fc.property(fc.constantFrom(...listedOptions), garbage, ({ option, path }, text) => {
        fc.pre(text.trim() !== "" && option.kind.parse(text.trim()) === undefined && path !== "environment");
        fc.pre(!(option.name.endsWith("_PORT") && text.trim().startsWith("tcp://")));
        try {
          readConfig(deployment({ [option.name]: text }));
        } catch (error) {
          expect((error as ConfigError).problems.map(({ variable }) => variable)).toEqual([option.name]);
          return;
        }
        throw new Error("accepted");
      }),
      { numRuns: 1_000 },
    );
  });
});

/** Text unlike anything else in a configuration, valid as a password, a token and a shared secret. */
const secret = fc.stringMatching(/^Zq[A-Za-z0-9]{34}$/);

describe("secrets", () => {
  it("never appear in a printed configuration or a printed part of one", () => {
    fc.assert(
      fc.property(secret, fc.uint8Array({ minLength: 32, maxLength: 32 }), (text, bytes) => {
        const key = Buffer.from(bytes);
        fc.pre(new Set(bytes).size >= 8);
        const config = readConfig(
          deployment({
            POSTHORN_DATABASE_URL: `postgres://u:${text}@db/x?password=${text}`,
            POSTHORN_NATS_URL: `nats://${text}@n1:4222,nats://u:${text}@n2:4222`,
            POSTHORN_REDIS_HOST: "cache",
            POSTHORN_REDIS_PASSWORD: text,
            POSTHORN_NATS_TOKEN: text,
            POSTHORN_ENCRYPTION_KEY: key.toString("base64"),
            POSTHORN_ENCRYPTION_PREVIOUS_KEYS: Buffer.from(bytes.map((byte) => byte ^ 1)).toString("hex"),
            POSTHORN_OPERATOR_KEYS: `${text},${text}2`,
            POSTHORN_JWT_SECRET: text,
            POSTHORN_OTLP_ENDPOINT: `https://u:${text}@collector`,
            POSTHORN_OTLP_HEADERS: `x-key=${text}`,
          }),
        );
        expect(config.redis.url).toContain(text);
        const parts = [config, ...Object.values(config)];
        const printed = parts
          .flatMap((part) => [JSON.stringify(part), inspect(part, { depth: 9, showHidden: false }), `${part}`])
          .concat(describeConfig(config))
          .filter((line) => line !== undefined);
        for (const line of printed) {
          expect(line).not.toContain(text);
          expect(line).not.toContain(key.toString("hex"));
          expect(line).not.toContain(key.toString("base64"));
          expect(line).not.toContain(key.subarray(0, 8).join(","));
        }
      }),
      { numRuns: 200 },
    );
  });

  it("never appear in an error, even when they are not valid", () => {
    const hidden = listedOptions.filter(({ option }) => option.secrecy !== "public").map(({ option }) => option);
    fc.assert(
      fc.property(fc.constantFrom(...hidden), secret, (option, text) => {
        const env = deployment({ [option.name]: `${text} \u0001,`, POSTHORN_GRPC_PORT: "x" });
        try {
          readConfig(env);
          throw new Error("accepted");
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
          expect(inspect(error)).not.toContain(text);
          expect(JSON.stringify((error as ConfigError).problems)).not.toContain(text);
        }
      }),
    );
  });

  it("every option whose name tells of a secret is one", () => {
    const telling = listedOptions.filter(({ path }) => /password|secret|token|keys?$|headers$/i.test(path));
    expect(telling.length).toBeGreaterThan(6);
    const notASecret = ["apiLimits.perKey"];
    for (const { path, option } of telling) {
      if (!notASecret.some((prefix) => path.startsWith(prefix)))
        expect([path, option.secrecy]).toEqual([path, "secret"]);
    }
  });
});

describe("the description of the options", () => {
  it("no two options share a variable", () => {
    expect(names).toHaveLength(new Set(names).size);
  });

  it("every default is a value the option itself would read", () => {
    for (const { option } of listedOptions) {
      for (const value of Object.values(option.defaults)) {
        if (value === undefined || value === required) continue;
        const text = option.kind.show(value);
        if (text !== "") expect([option.name, option.kind.parse(text)]).toEqual([option.name, value]);
      }
    }
  });

  it("names every variable and tells no built-in secret", () => {
    for (const text of [configDocument(), configHelp()]) {
      for (const name of names) expect(text).toContain(name);
      expect(text).not.toContain(readConfig({}).auth.operatorKeys[0]);
    }
  });

  it("deploy/CONFIGURATION.md is what the program reads: `npm run gen` writes it", () => {
    expect(readFileSync(new URL("../deploy/CONFIGURATION.md", import.meta.url), "utf8")).toBe(configDocument());
  });
});
