"""The about page: what runs here, what it can, and what it cannot.

The figures are those of the paper (arXiv 2603.19223) and of the public MTEB results; none was measured by this app.
"""

from __future__ import annotations

import controls
import streamlit as st
import ui
from resources import Model

from f2rag.models import MODELS, ModelSpec, mrl_ladder, resolve

# What the model does not do, each with what it was measured by.
LIMITS = (
    (
        "English retrieval is weaker than that of Qwen3-Embedding.",
        "On the English retrieval tasks of MTEB (v2) the largest model, 14B, scores 60.6, and Qwen3-Embedding-0.6B "
        "61.8. The good English averages come from classification and clustering. [MTEB results]",
    ),
    (
        "Instructions choose the task; they neither exclude nor restrict.",
        "“Not about taxes” or “only after 2010” is not followed: on MTEB's instruction reranking the sizes score "
        "between -3.4 and 2.3, where 0 means that the instruction changed nothing. Use filters. [MTEB results]",
    ),
    (
        "Long texts: each size has a safe length.",
        "One sentence hidden in 8,192 tokens is found by 80M in 2 % of the cases, by 160M in 36 %, by 330M in 70 % and "
        "from 0.6B up in 100 %; in the harder needle test even 14B finds 44 %. Beyond 8,192 tokens nothing was ever "
        "measured. f2rag cuts documents into chunks that every size can take. [LongEmbed, MTEB results]",
    ),
    (
        "Reasoning is not its strength.",
        "Where an answer must be thought out rather than recognised, scores are low: on BRIGHT 8.7 (80M) to 19.7 "
        "(14B). [MTEB results]",
    ),
    (
        "Fewer dimensions find less.",
        "The gain is steep from 8 to 128 dimensions, and small beyond. The page Compare measures it on your own "
        "collection. [Paper, figure 5]",
    ),
    (
        "Languages are not equally good.",
        "28.7 % of the training samples are English, 7.7 % Chinese, 6.1 % Russian; many of the 282 languages have few. "
        "[Paper]",
    ),
)
_TRAINED_LANGUAGES = 282


def page() -> None:
    """The page, from top to bottom."""
    st.title("About")
    model = controls.ready_model()
    controls.banner(model, briefly=False)
    st.subheader("What runs here")
    st.html(ui.table(facts(model)))
    st.subheader("What F2LLM-v2 does not do")
    for claim, evidence in LIMITS:
        st.markdown(f"**{ui.markdown(claim)}** {ui.markdown(evidence)}")
    st.subheader("The sizes of F2LLM-v2")
    st.html(
        ui.table(
            [size_row(spec) for spec in MODELS if spec.kind == "instruct"],
            head=["Model", "Parameters", "Trained dimensions", "Memory in bfloat16", "Safe length in tokens"],
        )
    )
    st.caption(
        "F2LLM-v2 is by codefuse-ai, its weights are under Apache-2.0, and so is f2rag. This app sends no usage "
        "statistics."
    )


def facts(model: Model) -> list[list[str]]:
    """What is known about the model that runs."""
    encoder = model.encoder
    plan, contract = encoder.device_plan, encoder.contract()
    spec = resolve(encoder.options.model).spec
    rows = [
        ["Model", f"{encoder.model_name}{'' if spec is None else f', {spec.parameters / 1e6:,.0f} M parameters'}"],
        ["Why this one", model.reason],
        ["Revision", contract.revision],
        ["Device", plan.device],
        ["Dtype", f"{plan.dtype}: {plan.reason}"],
        ["Attention", attention(model)],
        ["Trained dimensions", ", ".join(map(str, mrl_ladder(encoder.native_dimensions)))],
        ["Instruction of queries", encoder.instruction or "none"],
        ["Texts are cut after", f"{encoder.max_length:,} tokens"],
    ]
    if spec is not None:
        rows += spec_rows(spec)
    return rows


def spec_rows(spec: ModelSpec) -> list[list[str]]:
    """What is known about a published checkpoint."""
    rows = [
        [
            "Length",
            f"safe to {spec.safe_length:,} tokens, evaluated to {spec.evaluated_length:,}, positions for "
            f"{spec.maximum_length:,}",
        ],
        ["Licence of the weights", spec.licence],
    ]
    tags = spec.languages if isinstance(spec.languages, int) else len(spec.languages)
    if tags:
        rows.append(["Languages", f"{tags} named on its card, {_TRAINED_LANGUAGES} in the training data"])
    return rows


def attention(model: Model) -> str:
    """How the model computes, and by how much its fast way differs from the stock one."""
    difference, fast = model.encoder.self_test_result()
    if not fast:
        return "sdpa, in the stock forward of transformers: the fast one differed too much here"
    if not difference:
        return "sdpa without padding masks; its vectors equal those of the stock forward"
    return f"sdpa without padding masks; its vectors differ from those of the stock forward by at most {difference:.0e}"


def size_row(spec: ModelSpec) -> list[str]:
    """One size, as a row."""
    return [
        spec.short_name,
        f"{spec.parameters / 1e6:,.0f} M",
        ", ".join(map(str, spec.mrl_dimensions)),
        f"{spec.memory_bytes('bfloat16') / 1e9:.1f} GB",
        f"{spec.safe_length:,}",
    ]


page()
