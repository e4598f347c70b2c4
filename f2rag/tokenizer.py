"""Text to token ids, with exactly one EOS at the end, also after truncation.

Reads ``tokenizer.json`` with the tokenizers library itself: the same ids in every version of transformers, the GIL is
free while it works, and no setting in ``tokenizer_config.json`` can drop the EOS whose state is the embedding.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from f2rag.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|im_end|>"
"""The token that ends every text; its last hidden state is the embedding. Its id differs between vocabularies."""

PADDING = "<|endoftext|>"

TokenIds = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of texts, and which of the texts were cut.

    Attributes:
        ids: One int64 array of shape (tokens,) per text, ending in the EOS.
        overlong: ``{position: tokens before the cut}`` of the texts that were cut.
    """

    ids: list[TokenIds]
    overlong: dict[int, int]


class F2LLMTokenizer:
    """A checkpoint's tokenizer, probed once so that a wrong one cannot give wrong vectors.

    Args:
        folder: The checkpoint folder, with ``tokenizer.json``.
        vocabulary_size: Rows of the model's embedding table.

    Raises:
        TokenizerError: No fast tokenizer, no ``<|im_end|>``, not exactly one at the end, or ids outside the table.
    """

    def __init__(self, folder: Path, *, vocabulary_size: int) -> None:
        self.file = folder / "tokenizer.json"
        self._tokenizer = _read_tokenizer(self.file)
        self.eos_id = _probe(self._tokenizer, file=self.file, vocabulary_size=vocabulary_size)
        padding = self._tokenizer.token_to_id(PADDING)
        # Any id will do: without a mask the causal model never looks at what follows the EOS.
        self.pad_id = self.eos_id if padding is None else padding

    def encode(self, texts: Sequence[str], *, max_length: int) -> Tokenized:
        """Tokenise texts, which must be valid Unicode; longer ones keep ``max_length - 1`` tokens and the EOS."""
        ids: list[TokenIds] = []
        overlong: dict[int, int] = {}
        for position, encoding in enumerate(self._encode_batch(texts)):
            row = np.asarray(encoding, dtype=np.int64)
            if len(row) > max_length:
                overlong[position] = len(row)
                row = np.append(row[: max_length - 1], self.eos_id)
            ids.append(row)
        return Tokenized(ids, overlong)

    def count(self, text: str) -> int:
        """Tokens of a text, EOS included, before any cut."""
        return len(self._encode_batch([text])[0])

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]


def _read_tokenizer(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not file.is_file():
        message = (
            f"{str(file.parent)!r} has no tokenizer.json. F2LLM-v2 needs the fast tokenizer, since the slow one adds "
            "no EOS; download tokenizer.json of the same revision into the folder."
        )
        raise TokenizerError(message)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for unreadable files
        message = f"{str(file)!r} cannot be read as a tokenizer ({error}). Download it again."
        raise TokenizerError(message) from error
    # A stored truncation would cut silently, a stored padding would append tokens after the EOS.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _probe(tokenizer: Tokenizer, *, file: Path, vocabulary_size: int) -> int:
    eos = tokenizer.token_to_id(END_OF_TEXT)
    if eos is None:
        message = f"{str(file)!r} has no token {END_OF_TEXT}; it does not belong to F2LLM-v2. Download it again."
        raise TokenizerError(message)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary_size:
        message = (
            f"{str(file)!r} has token ids up to {largest}; the model's table has {vocabulary_size} rows. "
            "Tokenizer and weights belong to different models: download both from one revision."
        )
        raise TokenizerError(message)
    for text in ("", "probe", "two words\nand a line"):
        ids = tokenizer.encode(text).ids
        if ids.count(eos) != 1 or ids[-1] != eos:
            ending = tokenizer.id_to_token(ids[-1]) if ids else "nothing"
            message = (
                f"{str(file)!r} turns {text!r} into {len(ids)} tokens ending in {ending!r} with {ids.count(eos)} "
                f"{END_OF_TEXT}; F2LLM-v2 needs exactly one at the end, since its state is the embedding. "
                "Use the tokenizer.json of the F2LLM-v2 repository."
            )
            raise TokenizerError(message)
    return int(eos)


def append_end_of_text(tokenizer_json: str) -> str:
    """Give a plain Qwen3 ``tokenizer.json`` the post-processor of F2LLM-v2, which appends ``<|im_end|>``.

    For writing checkpoints and tests; published F2LLM-v2 tokenizers have it. One that appends it already is returned as
    it is.
    """
    from tokenizers import Tokenizer

    content = json.loads(tokenizer_json)
    if Tokenizer.from_str(tokenizer_json).encode("").tokens == [END_OF_TEXT]:
        return tokenizer_json
    eos = next(token["id"] for token in content["added_tokens"] if token["content"] == END_OF_TEXT)
    end = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [first, end],
        "pair": [first, end, second, end],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [eos], "tokens": [END_OF_TEXT]}},
    }
    previous = content.get("post_processor")
    processors = [previous, template] if previous else [template]
    content["post_processor"] = {"type": "Sequence", "processors": processors}
    return json.dumps(content, ensure_ascii=False)
