/** Where the time comes from; main gives the real one, tests their own. */
export type Clock = () => Date;
