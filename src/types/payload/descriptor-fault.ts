/** What is wrong with a descriptor set, in words for whoever pushes it. Names a file or symbol. */
export class DescriptorFault extends Error {}

/** A name of the caller's, as it may stand in an error. */
export function named(name: string): string {
  return `"${(name.length > 200 ? `${name.slice(0, 200)}…` : name).toWellFormed()}"`;
}
