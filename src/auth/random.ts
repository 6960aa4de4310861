/** Where unguessable bytes come from: `crypto.randomBytes` in main, something repeatable in tests. */
export type RandomBytes = (count: number) => Uint8Array;
