// What the programs of this folder have in common: `node PROGRAM BASE KEY` reads lines from standard input, each a list
// of cases, asks all cases of a line at once, and answers with one line, a list of readings in their order
// (tests/clients/readings.py).
import { createInterface } from "node:readline";

export const [base, key] = process.argv.slice(2);

// One reading: what the client holds in the end, or the error that it raised.
async function readingOf(read, one, describeError) {
  try {
    return await read(one);
  } catch (error) {
    return describeError(error);
  }
}

export const describeError = (error) => ({
  error: error.constructor.name,
  status: error.status ?? null,
  message: error.message,
});

export async function answerBatches(readers, describe = describeError) {
  for await (const line of createInterface({ input: process.stdin })) {
    const readings = JSON.parse(line).map((one) => readingOf(readers[one.way], one, describe));
    console.log(JSON.stringify(await Promise.all(readings)));
  }
}

// How many events a stream has; they are read to its end.
export async function countEvents(stream) {
  let events = 0;
  for await (const _ of stream) events += 1;
  return events;
}
