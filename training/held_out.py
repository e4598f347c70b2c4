"""Writes the held-out strings of `benchmarks/quality.py`: `python -m training.held_out --work FOLDER`."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from training.rows import Row, bucket, five_grams, read_rows

LANGUAGES = frozenset(("ar", "de", "es", "fr", "hi", "it", "ja", "ko", "ru", "tr", "vi", "zh"))
SOURCES = ("chromium", "homeassistant", "home-assistant-frontend")  # BSD-3-Clause and Apache-2.0: may be shipped
COUNT = 200
OUTPUT = Path(__file__).resolve().parent.parent / "benchmarks" / "data"

NOTICE = """\
held_out.json holds interface strings of two products, in English and twelve other languages:

* Chromium (BSD-3-Clause, Copyright The Chromium Authors), from the Debian packages chromium-common and chromium-l10n;
* Home Assistant (Apache-2.0, Copyright Home Assistant contributors), from the Python packages homeassistant and
  home-assistant-frontend.

Versions are in training/pins.py. Placeholders and markup were removed. The strings were kept out of the
stand-in's training by a hash of the English text; strings that share half of their word 5-grams with a training string
were dropped.

Redistribution of the Chromium strings in source or binary form is permitted under the BSD-3-Clause licence, whose text
is at the top of Chromium's own LICENSE file: redistributions must retain this copyright notice, and the names of Google
LLC and its contributors may not be used to endorse products without permission; THE SOFTWARE IS PROVIDED "AS IS",
WITHOUT WARRANTIES OF ANY KIND.
"""


def choose(rows: list[Row]) -> list[dict[str, str]]:
    """Returns held-out strings that exist in most of the languages and are no near-copies of training strings."""
    seen = {gram for row in rows if bucket(row.english) > 1 for gram in five_grams(row.english)}
    chosen = []
    for row in rows:
        grams = five_grams(row.english)
        usable = row.source in SOURCES and bucket(row.english) == 0 and len(LANGUAGES & row.texts.keys()) >= 6
        if usable and 4 <= len(row.english.split()) <= 30 and len(grams & seen) < 0.5 * len(grams):
            chosen.append(
                {"source": row.source, "en": row.english}
                | {code: text for code, text in sorted(row.texts.items()) if code in LANGUAGES}
            )
    random.Random(0).shuffle(chosen)
    return chosen[:COUNT]


def main() -> None:
    """Writes `held_out.json` and its notice."""
    parser = argparse.ArgumentParser(prog="python -m training.held_out", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the work folder of `python -m training`")
    rows = choose(list(read_rows(parser.parse_args().work / "rows.jsonl")))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"languages": ["en", *sorted(LANGUAGES)], "rows": rows}, ensure_ascii=False, indent=0)
    (OUTPUT / "held_out.json").write_text(text + "\n", encoding="utf-8")
    (OUTPUT / "NOTICE").write_text(NOTICE, encoding="utf-8")
    print(f"{len(rows)} strings in {len(LANGUAGES) + 1} languages")


if __name__ == "__main__":
    main()
