"""The about page: what runs here, and what the model does not do."""

from __future__ import annotations

import re

import pytest
from app_fixtures import (
    AppEncoder,
    at_page,
    html_of,
    plain,
    text_of,
)

from f2rag.errors import ModelNotFoundError
from f2rag.models import MODELS

pytestmark = pytest.mark.usefixtures("modules")


def facts_of(app):
    table = next(element.proto.body for element in app.get("html") if "Revision" in element.proto.body)
    return dict(re.findall(r'<th scope="row">(.*?)</th><td dir="auto">(.*?)</td>', table))


def test_it_names_model_revision_device_dtype_attention_and_sizes():
    page = at_page("about").run()
    assert not page.exception
    facts = facts_of(page)
    assert facts["Model"].startswith("fake")
    assert facts["Revision"] == "fake-1"
    assert facts["Device"] == "cpu"
    assert facts["Dtype"] == "float32: no &lt;AMX&gt;"
    assert facts["Attention"].endswith("differ from those of the stock forward by at most 1e-07")
    assert facts["Trained dimensions"] == "8, 16, 32, 64, 128, 256"
    assert facts["Instruction of queries"].startswith("Given a question")
    assert facts["Texts are cut after"] == "512 tokens"
    assert facts["Licence of the weights"] == "Apache-2.0"


def test_the_stand_in_says_what_it_is_and_claims_no_languages():
    page = at_page("about").run()
    assert "not F2LLM-v2" in page.warning[0].value
    assert "Languages" not in facts_of(page)


def test_a_published_model_brings_its_row(monkeypatch):
    class Options:
        model = "80M"

    monkeypatch.setattr(AppEncoder, "options", Options())
    monkeypatch.setattr(AppEncoder, "is_stand_in", False)
    page = at_page("about").run()
    assert not page.warning
    facts = facts_of(page)
    assert facts["Model"] == "fake, 80 M parameters"
    assert facts["Length"] == "safe to 1,024 tokens, evaluated to 8,192, positions for 40,960"
    assert facts["Languages"] == "87 named on its card, 282 in the training data"


@pytest.mark.parametrize(
    ("result", "words"), [((0.0, True), "equal those of the stock"), ((0.5, False), "in the stock forward")]
)
def test_attention_says_which_forward_runs(monkeypatch, result, words):
    monkeypatch.setattr(AppEncoder, "self_test_result", lambda self: result)
    assert words in facts_of(at_page("about").run())["Attention"]


def test_it_says_what_the_model_does_not_do():
    page = at_page("about").run()
    text = plain("\n".join(element.value for element in page.markdown))
    for claim in ("Qwen3-Embedding", "neither exclude nor restrict", "8,192 tokens", "Reasoning", "Fewer dimensions"):
        assert claim in text
    # Each with its source.
    limits = [element.value for element in page.markdown]
    assert all(
        re.search(r"\[(MTEB results|LongEmbed, MTEB results|Paper|Paper, figure 5)\]$", plain(each)) for each in limits
    )


def test_all_sizes_are_listed():
    page = at_page("about").run()
    table = next(element.proto.body for element in page.get("html") if "Parameters" in element.proto.body)
    for spec in MODELS:
        if spec.kind == "instruct":
            assert f'<th scope="row">{spec.short_name}</th>' in table
    assert text_of(table).count(" GB") == 8
    assert "80M80 M8, 16, 32, 64, 128, 256, 3200.2 GB1,024" in text_of(table)


def test_no_collection_is_needed(modules, monkeypatch, tmp_path):
    monkeypatch.setenv("F2RAG_LOCATION", "http://127.0.0.1:9")
    page = at_page("about").run()
    assert not page.error
    assert "Revision" in html_of(page)


def test_an_error_has_its_state(monkeypatch):
    def missing(self):
        raise ModelNotFoundError("There is no such model.")

    monkeypatch.setattr(AppEncoder, "warm_up", missing)
    page = at_page("about").run()
    assert plain(page.error[0].value) == "There is no such model."
    assert page.button(key="retry")
