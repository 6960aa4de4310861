import { type Gate, suppress } from "./gate.ts";

/** The user does not want this type, or its category; nor an opt-in type that they have not asked for. */
export const switchedOff: Gate = ({ notification: { type, category }, preferences }) => {
  const { off } = preferences.scope(type, category);
  return off === undefined ? undefined : suppress(off);
};
