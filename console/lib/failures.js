// Finds the tasks that failed like one that did.

/** The longest part of a message that tasks which failed alike have in common: words without digits or quotes. */
export function commonPart(message) {
  const pieces = message.split(/\s*[^\s"]*[\d"\u0000-\u001f]\S*\s*|\n/).map((piece) => piece.trim());
  return pieces.reduce((longest, piece) => (piece.length > longest.length ? piece : longest), "");
}

/** A message without what differs from task to task, as the server makes it. */
const FINGERPRINT_LETTERS = 200;
export const fingerprint = (message) =>
  [...message.split(/\s+/).filter(Boolean).map((word) => (/\d/.test(word) ? "#" : word)).join(" ")].slice(0, FINGERPRINT_LETTERS).join("");

/** Whether a task is one of a group. */
export const isOf = (group, task) => task.failure?.kind === group.kind && fingerprint(task.failure.message) === group.fingerprint;

/** A query for them, which may find a few more. */
export function queryOf({ message, queues }) {
  const part = commonPart(message);
  const queue = queues.length === 1 ? ` queue:"${queues[0]}"` : "";
  return `state:failed${queue}${part ? ` error:"${part}"` : ""}`;
}
