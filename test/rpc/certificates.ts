import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Certificates made for one run with the openssl command; undefined where there is none, said on standard error. */
export const certificates = make();

function make() {
  if (spawnSync("openssl", ["version"]).status !== 0) {
    process.stderr.write("skipped: TLS tests (no openssl command)\n");
    return undefined;
  }
  const dir = mkdtempSync(join(tmpdir(), "posthorn-tls-"));
  const at = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => {
    const { status, stderr } = spawnSync("openssl", args);
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`);
  };
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    at("ca.key"),
    "-out",
    at("ca.crt"),
    "-subj",
    "/CN=test ca",
    "-days",
    "2",
  );
  writeFileSync(at("san"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  for (const name of ["server", "client"]) {
    openssl("req", ...newKey, "-keyout", at(`${name}.key`), "-out", at(`${name}.csr`), "-subj", `/CN=${name}`);
    const signed = [
      "-CA",
      at("ca.crt"),
      "-CAkey",
      at("ca.key"),
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      at("san"),
    ];
    openssl("x509", "-req", "-in", at(`${name}.csr`), ...signed, "-out", at(`${name}.crt`));
  }
  return {
    ca: { cert: at("ca.crt"), pem: readFileSync(at("ca.crt")) },
    server: { cert: at("server.crt"), key: at("server.key") },
    client: { certPem: readFileSync(at("client.crt")), keyPem: readFileSync(at("client.key")) },
  };
}
