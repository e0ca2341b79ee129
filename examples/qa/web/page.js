// Load the exported model from /model/ and answer questions in the page.

import { Tokenizer } from "@huggingface/tokenizers"
import * as ort from "onnxruntime-web"
import { answer } from "./answer.js"

const $ = (id) => document.getElementById(id)
const fetchJson = async (name) => (await fetch(`/model/${name}`)).json()

async function load() {
  ort.env.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/"
  const settings = await fetchJson("tokenizer_config.json")
  const weights = await fetch("/model/model.onnx.data", { method: "HEAD" }) // small models have none
  const externalData = weights.ok ? [{ path: "model.onnx.data", data: "/model/model.onnx.data" }] : []
  return {
    ort,
    session: await ort.InferenceSession.create("/model/model.onnx", { externalData }),
    tokenizer: new Tokenizer(await fetchJson("tokenizer.json"), settings),
    maxTokens: settings.model_max_length,
  }
}

const started = performance.now()
const model = await load()
$("status").textContent = `Loaded in ${((performance.now() - started) / 1000).toFixed(2)} s.`
$("ask").disabled = false

$("form").addEventListener("submit", async (event) => {
  event.preventDefault()
  const text = $("paragraph").value
  const started = performance.now()
  const { score, begin, end } = await answer(model, $("question").value, text)
  $("status").textContent = `Score ${score.toFixed(2)}, answered in ${(performance.now() - started).toFixed(0)} ms.`
  const mark = document.createElement("mark")
  mark.textContent = text.slice(begin, end)
  $("answer").replaceChildren(text.slice(0, begin), mark, text.slice(end))
})
