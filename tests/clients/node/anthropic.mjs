// @anthropic-ai/sdk: Messages. Streams are read by the client's own accumulator.
import Anthropic from "@anthropic-ai/sdk";
import { answerBatches, base, countEvents, key } from "./batches.mjs";

const client = new Anthropic({ baseURL: base, authToken: key, apiKey: null });
const body = ({ model, prompt }) => ({ model, max_tokens: 99, messages: [{ role: "user", content: prompt }] });
const reading = (message, events) => ({
  text: message.content.map((block) => block.text ?? "").join(""),
  finish: message.stop_reason,
  usage: [message.usage.input_tokens, message.usage.output_tokens],
  events,
});

await answerBatches({
  "messages whole": async (one) => reading(await client.messages.create(body(one)), 1),
  "messages stream": async (one) => {
    const stream = client.messages.stream(body(one));
    const events = await countEvents(stream);
    return reading(await stream.finalMessage(), events);
  },
});
