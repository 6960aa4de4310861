/**
 * How much of a user's hourly cap a notification may find used and still come, by what it is worth: `value` times
 * `urgency` of its type, each 1 to 5. What is worth little leaves a part to what is worth more; what is worth as much as
 * things usually are (3 times 3), or more, may use all of it. At least 1, at most `perHour`. Pure.
 */
export function budget(perHour: number, worth: number): number {
  const share = SHARES.find(({ below }) => worth < below)?.percent ?? 100;
  return Math.ceil((perHour * share) / 100);
}

const SHARES = [
  { below: 5, percent: 50 },
  { below: 9, percent: 80 },
] as const;
