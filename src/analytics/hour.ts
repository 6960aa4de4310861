/** The hour that holds an instant, in UTC: what counters are kept by. */
export function hourOf(time: Date): Date {
  return new Date(Math.floor(time.getTime() / 3_600_000) * 3_600_000);
}
