// openai-node: chat, text and Responses. Streams of chat and Responses are read by the client's own accumulators.
import OpenAI from "openai";
import { answerBatches, base, countEvents, key } from "./batches.mjs";

const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key });
const withUsage = { stream_options: { include_usage: true } };
const chatBody = ({ model, prompt }) => ({ model, messages: [{ role: "user", content: prompt }] });
const tokens = (usage) =>
  usage && [usage.prompt_tokens ?? usage.input_tokens, usage.completion_tokens ?? usage.output_tokens];

const chatReading = (answer, events) => ({
  text: answer.choices[0].message.content,
  finish: answer.choices[0].finish_reason,
  usage: tokens(answer.usage),
  events,
});
const responseReading = (answer, events) => ({
  text: answer.output_text,
  finish: answer.status,
  usage: tokens(answer.usage),
  events,
  message: answer.error?.message ?? "",
});

await answerBatches({
  "chat whole": async (one) => chatReading(await client.chat.completions.create(chatBody(one)), 1),
  "chat stream": async (one) => {
    const stream = client.chat.completions.stream({ ...chatBody(one), ...withUsage });
    const events = await countEvents(stream);
    return chatReading(await stream.finalChatCompletion(), events);
  },
  "text whole": async ({ model, prompt }) => {
    const answer = await client.completions.create({ model, prompt });
    const [choice] = answer.choices;
    return { text: choice.text, finish: choice.finish_reason, usage: tokens(answer.usage), events: 1 };
  },
  "text stream": async ({ model, prompt }) => {
    const reading = { text: "", finish: null, usage: null, events: 0 };
    for await (const chunk of await client.completions.create({ model, prompt, stream: true, ...withUsage })) {
      reading.events += 1;
      reading.usage = tokens(chunk.usage) ?? reading.usage;
      for (const choice of chunk.choices) {
        reading.text += choice.text ?? ""; // LiteLLM's last one has none
        reading.finish = choice.finish_reason ?? reading.finish;
      }
    }
    return reading;
  },
  "responses whole": async ({ model, prompt }) =>
    responseReading(await client.responses.create({ model, input: prompt }), 1),
  "responses stream": async ({ model, prompt }) => {
    const stream = client.responses.stream({ model, input: prompt });
    const events = await countEvents(stream);
    return responseReading(await stream.finalResponse(), events);
  },
});
