/** The `err_code` of JetStream's API in an error of the client, if it has one: more exact than the code that HTTP knows. */
export function jetstreamCode(error: unknown): number | undefined {
  return (error as { api_error?: { err_code?: number } }).api_error?.err_code;
}
