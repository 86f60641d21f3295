// Vercel's `ai` with its providers for OpenAI (chat, text, Responses) and Anthropic (Messages).
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import { answerBatches, base, describeError, key } from "./batches.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false; // it knows the names of models, and ours are none of them
const openai = createOpenAI({ baseURL: `${base}/v1`, apiKey: key });
const anthropic = createAnthropic({ baseURL: `${base}/v1`, authToken: key });
const models = {
  chat: (name) => openai.chat(name),
  text: (name) => openai.completion(name),
  responses: (name) => openai.responses(name),
  messages: (name) => anthropic(name),
};
const tokens = (usage) => [usage.inputTokens ?? null, usage.outputTokens ?? null];

async function readWhole(request) {
  const answer = await generateText(request);
  return { text: answer.text, finish: answer.finishReason, usage: tokens(answer.usage), events: 1 };
}

// `fullStream` ends without an exception after an error, which is one of its parts.
async function readStream(request) {
  const answer = streamText({ ...request, onError: () => {} });
  let events = 0;
  for await (const part of answer.fullStream) {
    events += 1;
    if (part.type === "error") throw part.error;
  }
  return { text: await answer.text, finish: await answer.finishReason, usage: tokens(await answer.usage), events };
}

// To the text endpoint it writes `user:` before a prompt, but nothing before the system's words.
const wordsOf = (endpoint, prompt) => (endpoint === "text" ? { system: prompt, prompt: "Go on." } : { prompt });
const readers = {};
for (const [endpoint, model] of Object.entries(models)) {
  const requestOf = (one) => ({ model: model(one.model), ...wordsOf(endpoint, one.prompt) });
  readers[`${endpoint} whole`] = (one) => readWhole(requestOf(one));
  readers[`${endpoint} stream`] = (one) => readStream(requestOf(one));
}
await answerBatches(readers, (error) => ({ ...describeError(error), status: error.statusCode ?? null }));
