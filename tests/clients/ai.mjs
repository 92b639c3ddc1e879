// Vercel's AI SDK against a server: node ai.mjs ADDRESS
// Prints one JSON object; the test that runs it looks at what is in it.
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";

const [address] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${address}/v1`, apiKey: "none" });
const said = {};

// It knows nothing of this model, so that it asks twice for one picture each, with two equal requests.
const two = await generateImage({
  model: openai.image("kandinsky-teacup"),
  prompt: "чашка на столе",
  n: 2,
  size: "256x256",
});
said.images = two.images.map((image) => image.base64);
said.types = two.images.map((image) => image.mediaType);
said.warnings = two.warnings.length;

const options = { openai: { quality: "low", background: "opaque", seed: 7 } };
const one = await generateImage({ model: openai.image("gpt-image-1"), prompt: "a cup", providerOptions: options });
said.one = one.image.base64;

try {
  await generateImage({ model: openai.image("kandinsky-teapot"), prompt: "a cup", maxRetries: 0 });
  said.error = null;
} catch (raised) {
  said.error = { message: raised.message, status: raised.statusCode };
}

console.log(JSON.stringify(said));
