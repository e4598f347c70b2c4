"""What a caller decides about an encoder, and the checks that need neither a file nor a device."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Sequence
from typing import get_args

from f2rag.errors import InputError, InstructionError, TextTypeError
from f2rag.memory import WEIGHT_DTYPES
from f2rag.models import ResolvedModel
from f2rag.prompts import DEFAULT_INSTRUCTION, check_instruction, resolve_task
from f2rag.types import Overflow


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """The constructor's arguments, described at ``F2LLMEncoder``; all that a pickle of an encoder holds."""

    model: str | os.PathLike[str]
    revision: str | None
    dimensions: int | None
    task: str | None
    instruction: str | None
    device: str | None
    dtype: str | None
    weight_dtype: str | None
    max_length: int | None
    on_overflow: Overflow
    local_files_only: bool
    cache_folder: str | None
    token_budget: int | None


def check_weight_dtype(weight_dtype: object) -> str | None:
    """Return the name if matrices can be held in it, or ``None`` for the compute dtype.

    Raises:
        InputError: It is neither.
    """
    if weight_dtype is not None and weight_dtype not in WEIGHT_DTYPES:
        message = (
            f"weight_dtype={weight_dtype!r} was given; expected {' or '.join(map(repr, WEIGHT_DTYPES))}, or None to "
            "hold the weights in the dtype they are computed in."
        )
        raise InputError(message)
    return None if weight_dtype is None else str(weight_dtype)


def choose_instructions(options: EncoderOptions, model: ResolvedModel) -> tuple[str | None, str | None]:
    """The query and the document instruction; ``None`` means: as the checkpoint's folder says.

    Raises:
        InputError: A task and an instruction are both given.
        InstructionError: The task is unknown, or the model was trained without instructions.
    """
    if options.task is not None and options.instruction is not None:
        message = (
            f"task={options.task!r} and instruction={options.instruction!r} were both given; give one of them. "
            "The task chooses the instruction."
        )
        raise InputError(message)
    if options.task is not None:
        task = resolve_task(options.task)
        check_takes_instruction(task.instruction, model)
        return task.instruction, task.instruction if task.applies_to == "both" else ""
    known = model.folder is None and model.spec is not None
    if options.instruction is not None:
        check_takes_instruction(options.instruction, model)
        return options.instruction, "" if known else None
    if not model.takes_instructions:
        return "", ""
    return (DEFAULT_INSTRUCTION, "") if known else (None, None)


def check_takes_instruction(instruction: str, model: ResolvedModel) -> None:
    """Refuse an instruction for a model that was trained without any, or one that is not a single sentence.

    Raises:
        InstructionError: It is either.
    """
    check_instruction(instruction)
    if instruction and not model.takes_instructions:
        message = (
            f"The instruction {instruction!r} was given; {model.name} was trained without instructions, and one would "
            "make its vectors worse. Leave it out, or use the instruct model of that size."
        )
        raise InstructionError(message)


def check_options(options: EncoderOptions, model: ResolvedModel) -> None:
    """Check the lengths, the policies and the revision.

    Raises:
        InputError: One is out of range, or a revision is given for a folder, which has none.
    """
    if options.on_overflow not in get_args(Overflow):
        message = f"on_overflow={options.on_overflow!r} was given; expected one of {', '.join(get_args(Overflow))}."
        raise InputError(message)
    for name, value, least in (("max_length", options.max_length, 2), ("token_budget", options.token_budget, 1)):
        if value is not None:
            check_whole_number(value, name=name, least=least)
    if options.revision is not None and (model.folder is not None or not isinstance(options.revision, str)):
        message = (
            f"revision={options.revision!r} was given for {model.name}; expected a commit, tag or branch of a "
            "model on the hub. A folder has no revisions: leave it out."
        )
        raise InputError(message)


def check_whole_number(value: object, *, name: str, least: int) -> int:
    """Return ``value`` as an int, also one of numpy's, if it is a whole number of at least ``least``.

    Raises:
        InputError: It is not.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # what it takes is what is asked here
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        message = f"{name}={value!r} was given; expected a whole number of at least {least}, or None."
        raise InputError(message)
    return number


def check_text(text: object, *, method: str) -> None:
    """Refuse what is not one string of valid Unicode.

    Raises:
        TextTypeError: It is no string.
        InputError: It holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        hint = " Use embed_queries for several." if isinstance(text, (list, tuple)) else ""
        message = f"{method} takes one string; {type(text).__name__} was given.{hint}"
        raise TextTypeError(message)
    _check_unicode(text, "The text")


def check_texts(texts: object, *, method: str, first: int = 0) -> None:
    """Refuse what is not a list of strings of valid Unicode, naming the first wrong item.

    Args:
        texts: What was given.
        method: For the message.
        first: Position of the first item, where ``texts`` is a part of a stream.

    Raises:
        TextTypeError: It is no list, or an item is no string.
        InputError: An item holds half of a surrogate pair.
    """
    if isinstance(texts, str):
        single = "embed_query" if method == "embed_queries" else f"{method}([text])"
        message = f"{method} takes a list of strings; one string was given. Use {single} for a single text."
        raise TextTypeError(message)
    if isinstance(texts, (bytes, bytearray)):
        message = f"{method} takes a list of strings; bytes were given. Decode them first: [data.decode('utf-8')]."
        raise TextTypeError(message)
    if not isinstance(texts, Sequence):
        message = (
            f"{method} takes a list of strings; {type(texts).__name__} was given. "
            "Use iter_documents for generators and other streams, or list(...)."
        )
        raise TextTypeError(message)
    for position, text in enumerate(texts, first):
        if not isinstance(text, str):
            message = f"Item {position} is of type {type(text).__name__}; every item must be a string."
            raise TextTypeError(message)
        _check_unicode(text, f"Text {position}")


def _check_unicode(text: str, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = (
            f"{what} is not valid Unicode (it holds half of a surrogate pair at character {error.start}). "
            "Decode it with errors='replace' first."
        )
        raise InputError(message) from error
