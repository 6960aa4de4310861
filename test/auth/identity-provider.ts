import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose";
import { onTestFinished } from "vitest";

export type SigningKey = { kid: string; alg: string; privateKey: CryptoKey; jwk: JWK };

export async function signingKey(kid: string, alg = "ES256"): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

/** Somebody's identity provider on this machine: publishes keys, counts who asks, and misbehaves on demand. */
export type IdentityProvider = {
  url: string;
  /** The key set it serves. */
  keys: SigningKey[];
  requests: number;
  /** Replaces the answer. */
  respond: ((response: ServerResponse) => void) | undefined;
  token(key: SigningKey, claims: JWTPayload, header?: object): Promise<string>;
};

export async function identityProvider(...keys: SigningKey[]): Promise<IdentityProvider> {
  const server = createServer((_request, response) => {
    provider.requests++;
    if (provider.respond !== undefined) return provider.respond(response);
    response.end(JSON.stringify({ keys: provider.keys.map(({ jwk }) => jwk) }));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const provider: IdentityProvider = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`,
    keys,
    requests: 0,
    respond: undefined,
    token: (key, claims, header) =>
      new SignJWT(claims).setProtectedHeader({ alg: key.alg, kid: key.kid, ...header }).sign(key.privateKey),
  };
  return provider;
}
