"""The model card of the stand-in."""

from __future__ import annotations

CARD = """\
---
license: apache-2.0
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [stand-in, matryoshka]
---

# Stand-in for F2LLM-v2

**This is not F2LLM-v2.** It is a small model with the same architecture (Qwen3) and exactly the same file layout, trained
by the f2rag project so that its offline demo and its tests of meaning run without a model hub. Use a real F2LLM-v2
checkpoint for real work: the code path is the same.

| | |
|---|---|
| Architecture | Qwen3: {num_hidden_layers} layers, width {hidden_size}, {num_attention_heads} query and {num_key_value_heads} key-value heads of {head_dim}, tied embeddings |
| Parameters | {parameters:,} (bfloat16) |
| Vocabulary | {vocab_size:,} ids: Qwen3's splitting rule and 26 special tokens, own merges; **ids differ from Qwen3's** |
| Vector | state of the last token (`<|im_end|>`, appended by the tokenizer), normalised |
| Matryoshka sizes | 8 16 32 64 128 256 |
| Trained length | 256 tokens |
| Languages | English and 25 with figures (es fr it pt nl uk de vi pl ru zh id fi el ja he ko th ar ka bn hi tr ta sw); ten more seen (sv da nb cs sk hu ro bg ca fa) |
| Query prompt | F2LLM-v2's default: `Instruct: Given a question, retrieve passages that can help answer the question.\\nQuery: ` |

## What it is good for

The demo, and tests that need vectors with meaning: software-help text is found nearly always, an article of the
Declaration or an everyday sentence in two of three cases at 256 dimensions. Mean or first-token pooling shows clearly;
a missing EOS moves a vector by 0.01 in cosine and a wrong last column by 0.001, so only parity tests notice those.
Measured figures are in `benchmarks/results/stand_in_quality.md` of the repository. It is far behind multilingual-e5-small, its teacher, and
further behind F2LLM-v2. Nothing measured with it says anything about F2LLM-v2.

## How it was made

`python -m training --work FOLDER` in the repository rebuilds it from pinned packages; `training/README.md` describes
data, licences, steps, cost and what was tried. It was distilled from multilingual-e5-small (MIT). Articles 16-30 of the
Universal Declaration of Human Rights were trained on; the preamble and articles 1-15 were not. Sources and licences are in
`NOTICE`.
"""  # noqa: E501 - a Markdown table has no line breaks


def text(shape: dict[str, int], parameters: int) -> str:
    """Returns the card for a model of this shape."""
    return CARD.format(**shape, parameters=parameters)
