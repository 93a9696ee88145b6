// OpenAI's SDK for JavaScript: `node openai_sdk.mjs BASE_URL`. Answers are checked by the gateway, as BASE_URL.
import OpenAI from "openai";

const [baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none" });
const ask = {
  model: "toploc-mini",
  messages: [{ role: "user", content: "What is 17 + 25?" }],
  temperature: 0,
  max_tokens: 32,
};

const completion = await client.chat.completions.create(ask);
let streamed = false;
for await (const event of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed ||= "toploc_proofs" in event;
}
const final = await client.chat.completions.stream(ask).finalChatCompletion();
const field = {
  response: "toploc_proofs" in completion,
  stream: streamed,
  "final object of .stream()": "toploc_proofs" in final,
};
console.log(JSON.stringify({ answer: completion.choices[0].message.content, field }));
