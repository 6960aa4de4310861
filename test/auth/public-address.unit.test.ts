import { expect, test } from "vitest";
import { keySetUrlFault } from "#src/auth/jwks-fetch.ts";
import { isLoopbackAddress, isPublicAddress } from "#src/auth/public-address.ts";

test.each(["8.8.8.8", "1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])(
  "%s is public",
  (address) => {
    expect(isPublicAddress(address)).toBe(true);
  },
);

test.each([
  "0.0.0.0",
  "10.1.2.3",
  "100.64.0.1",
  "127.0.0.1",
  "127.255.255.254",
  "169.254.169.254",
  "172.16.0.1",
  "172.31.255.255",
  "192.168.0.1",
  "198.19.0.1",
  "224.0.0.1",
  "255.255.255.255",
  "::",
  "::1",
  "::ffff:127.0.0.1",
  "::ffff:8.8.8.8",
  "::ffff:a9fe:a9fe",
  "64:ff9b::a9fe:a9fe",
  "2002:7f00:1::",
  "2001:0:1::",
  "fc00::1",
  "fd12::1",
  "fe80::1",
  "ff02::1",
  "2001:db8::1",
  "localhost",
  "",
])("%s is not public", (address) => {
  expect(isPublicAddress(address)).toBe(false);
});

test("loopback is 127.0.0.0/8 and ::1", () => {
  expect(["127.0.0.1", "127.1.2.3", "::1"].map(isLoopbackAddress)).toEqual([true, true, true]);
  expect(["128.0.0.1", "::2", "10.0.0.1", ""].map(isLoopbackAddress)).toEqual([false, false, false, false]);
});

const production = { loopback: false };
test.each([
  "http://keys.example.com/jwks",
  "https://127.0.0.1/jwks",
  "https://2130706433/jwks",
  "https://0x7f.1/jwks",
  "https://0177.0.0.1/jwks",
  "https://[::ffff:127.0.0.1]/jwks",
  "https://[::1]/jwks",
  "https://169.254.169.254/latest/meta-data",
  "https://user:password@keys.example.com/jwks",
  "https://keys.example.com/jwks#x",
  "ftp://keys.example.com/jwks",
  "file:///etc/passwd",
  "no url",
])("%s is refused as a JWKS URL", (url) => {
  expect(keySetUrlFault(url, production)).toMatch(/./);
});

test("https to a public name is a JWKS URL; http only to this machine, and only in development", () => {
  expect(keySetUrlFault("https://keys.example.com/jwks", production)).toBe(undefined);
  expect(keySetUrlFault("http://localhost:4000/jwks", production)).toMatch("https");
  expect(keySetUrlFault("http://localhost:4000/jwks", { loopback: true })).toBe(undefined);
  expect(keySetUrlFault("http://127.0.0.1:4000/jwks", { loopback: true })).toBe(undefined);
  expect(keySetUrlFault("http://10.0.0.1/jwks", { loopback: true })).toMatch("https");
});
