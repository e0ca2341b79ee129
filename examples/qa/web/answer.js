// Answer a question from a text with an exported span model, as answer.py does: tokenizer and model run in this page.

const STRIDE = 64 // tokens that neighbouring windows share
const LONGEST = 30 // tokens of an answer
const WORD = /[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}\s]/gu // where BERT's and byte-level tokenizers split a text

/** Return the tokens of a text, {id, begin, end}; each lies between the ends of its word. */
function tokenize(tokenizer, text) {
  return [...text.matchAll(WORD)].flatMap(({ 0: word, index: begin }) => {
    const spaced = /\s/.test(text[begin - 1] ?? "") ? ` ${word}` : word // byte-level tokens contain their space
    const { ids } = tokenizer.encode(spaced, { add_special_tokens: false })
    return ids.map((id) => ({ id, begin, end: begin + word.length }))
  })
}

/** Return the windows of a text: the ids of question and text, and the place at which the text's tokens start. */
function makeWindows(tokenizer, question, tokens, maxTokens) {
  const { ids } = tokenizer.encode(question, { text_pair: " " }) // ends with the token that follows the text
  const before = ids.slice(0, -1)
  const size = maxTokens - ids.length
  const windows = []
  for (let first = 0; ; first += size - STRIDE) {
    const part = tokens.slice(first, first + size)
    windows.push({ ids: [...before, ...part.map(({ id }) => id), ids.at(-1)], start: before.length, part })
    if (first + size >= tokens.length) return windows
  }
}

/** Return the span with the largest sum of logits: its score, and where in the text it begins and ends. */
function bestSpan(start, end, { start: offset, part }) {
  let best = { score: -Infinity }
  part.forEach(({ begin }, i) => {
    for (let j = i; j < Math.min(part.length, i + LONGEST); j++) {
      const score = start[offset + i] + end[offset + j]
      if (score > best.score) best = { score, begin, end: part[j].end }
    }
  })
  return best
}

/** Return the best answer over all windows: {score, begin, end}. */
export async function answer({ ort, session, tokenizer, maxTokens }, question, text) {
  let best = { score: -Infinity, begin: 0, end: 0 }
  for (const window of makeWindows(tokenizer, question, tokenize(tokenizer, text), maxTokens)) {
    const values = {
      input_ids: window.ids,
      attention_mask: window.ids.map(() => 1),
      token_type_ids: window.ids.map((_, place) => (place < window.start ? 0 : 1)),
    }
    const tensor = (name) => new ort.Tensor("int64", BigInt64Array.from(values[name], BigInt), [1, window.ids.length])
    const feeds = Object.fromEntries(session.inputNames.map((name) => [name, tensor(name)]))
    const { start_logits, end_logits } = await session.run(feeds)
    const found = bestSpan(start_logits.data, end_logits.data, window)
    if (found.score > best.score) best = found
  }
  return best
}
