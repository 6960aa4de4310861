/** How the tools of the languages say that they could not ask, or that they are too old to. */
const NOT_ASKED = new RegExp(
  [
    "NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Temporary failure in name|ensurepip is not", // pip
    "dial tcp|i/o timeout|no such host|proxyconnect|requires go >=", // go
    "Could not transfer|Unknown host|Connection refused|Connect timed out|Network is unreachable", // Maven
  ].join("|"),
);

/** And how they say that there is no such thing, whether they have asked for it or not. */
const NOT_THERE = /No matching distribution|Could not find artifact|could not be resolved|Unable to resolve artifact/;

/**
 * Whether what a build said means that it could not reach its package registry: a pin of something that does not exist
 * would say the same of itself, but then something that is known to exist can still be had.
 */
export async function isUnreachable(said: string, getsWhatIsKnown: () => Promise<boolean>): Promise<boolean> {
  if (NOT_ASKED.test(said)) return true;
  return NOT_THERE.test(said) && !(await getsWhatIsKnown());
}
