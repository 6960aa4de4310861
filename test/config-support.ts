/** A valid production environment, on top of which a test sets what it is about. */
export function deployment(more: Record<string, string> = {}): Record<string, string> {
  return {
    POSTHORN_ENV: "production",
    POSTHORN_DATABASE_URL: "postgres://posthorn:Vq3xPz81nD@db:5432/posthorn",
    POSTHORN_NATS_URL: "nats://n1:4222,nats://n2:4222",
    POSTHORN_REDIS_URL: "redis://redis:6379",
    POSTHORN_ENCRYPTION_KEY: "8f1c6d2e0b7a4953d1e2f3a4b5c6978812ab34cd56ef7890fedcba9876543210",
    POSTHORN_OPERATOR_KEYS: "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    ...more,
  };
}
