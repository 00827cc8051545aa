// Finds the tasks that failed like one that did.

/** The longest part of a message that tasks which failed alike have in common: words without digits or quotes. */
export function commonPart(message) {
  const pieces = message.split(/\s*[^\s"]*[\d"\u0000-\u001f]\S*\s*|\n/).map((piece) => piece.trim());
  return pieces.reduce((longest, piece) => (piece.length > longest.length ? piece : longest), "");
}

/** The query for them. */
export function queryOf({ message, queues }) {
  const part = commonPart(message);
  const queue = queues.length === 1 ? ` queue:"${queues[0]}"` : "";
  return `state:failed${queue}${part ? ` error:"${part}"` : ""}`;
}
