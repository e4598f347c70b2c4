"""The documents: snippets run and print what stands beside them, tables equal what the code says."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from f2rag.models import MODELS, STAND_IN_FOLDER
from f2rag.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

SNIPPETS = {
    name: (code, output)
    for name, code, output in re.findall(
        r"<!-- runs: ([^>]+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", README, flags=re.DOTALL
    )
}


def model_table() -> str:
    rows = [
        f"| {spec.name} | {spec.parameters / 1e6:,.0f} M | {', '.join(map(str, spec.mrl_dimensions))} | "
        f"{spec.memory_bytes('bfloat16') / 1e9:.1f} GB | {spec.safe_length:,} |"
        for spec in MODELS
        if spec.kind == "instruct"
    ]
    return "\n".join(rows)


def settings_table() -> str:
    attributes = dict(
        re.findall(r"^        (\w+): (.*?)(?=^        \w+:|^    \"\"\"|\Z)", str(Settings.__doc__) + "\n", re.M | re.S)
    )
    rows = []
    for name, field in Settings.model_fields.items():
        meaning = re.sub(r"\s+", " ", attributes[name]).replace("``", "`").strip()
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `F2RAG_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows)


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run_and_print_what_stands_beside_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (STAND_IN_FOLDER / "model.safetensors").is_file():
        pytest.skip("the stand-in checkpoint is not in this checkout")
    code, output = SNIPPETS[name]
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"README: {name}", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == output


def test_all_snippets_are_found() -> None:
    assert set(SNIPPETS) == {"quick start", "encoder", "store"}


def test_the_model_table_equals_the_models() -> None:
    assert model_table() in README, model_table()


def test_the_settings_table_equals_the_settings() -> None:
    assert settings_table() in README, settings_table()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_module_has_its_room_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.stem if path.suffix == ".py" else f"{path.name}/" for path in (ROOT / "f2rag").iterdir()}
    for room in rooms - {"__init__", "__pycache__/", "py.typed/", "data/", "errors", "types"}:
        assert f"`{room}" in text, room


def test_the_commands_of_the_readme_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "f2rag.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"^f2rag (\w+)", README, re.MULTILINE)):
        assert re.search(rf"\b{command}\b", help_text), command
