"""What a caller decides about an encoder, and the checks that need neither a file nor a device."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import get_args

from f2rag.errors import InputError, InstructionError, TextTypeError
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
    max_length: int | None
    on_overflow: Overflow
    local_files_only: bool
    cache_folder: str | None
    token_budget: int | None


def choose_instructions(options: EncoderOptions, model: ResolvedModel) -> tuple[str | None, str]:
    """The query and the document instruction; ``None`` for the query means: as the checkpoint's folder says.

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
    if options.instruction is not None:
        check_takes_instruction(options.instruction, model)
        return options.instruction, ""
    if not model.takes_instructions:
        return "", ""
    known = model.folder is None and model.spec is not None
    return (DEFAULT_INSTRUCTION if known else None), ""


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


def check_options(options: EncoderOptions) -> None:
    """Check the lengths and policies.

    Raises:
        InputError: One is out of range.
    """
    if options.on_overflow not in get_args(Overflow):
        message = f"on_overflow={options.on_overflow!r} was given; expected one of {', '.join(get_args(Overflow))}."
        raise InputError(message)
    for name, value, least in (
        ("max_length", options.max_length, 2),
        ("token_budget", options.token_budget, 1),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            message = f"{name}={value!r} was given; expected a whole number of at least {least}, or None."
            raise InputError(message)


def check_text(text: object, *, method: str) -> None:
    """Refuse what is not one string.

    Raises:
        TextTypeError: It is not.
    """
    if not isinstance(text, str):
        hint = " Use embed_queries for several." if isinstance(text, (list, tuple)) else ""
        message = f"{method} takes one string; {type(text).__name__} was given.{hint}"
        raise TextTypeError(message)


def check_texts(texts: object, *, method: str) -> None:
    """Refuse what is not a list of strings, naming the first wrong item.

    Raises:
        TextTypeError: It is not.
    """
    if isinstance(texts, str):
        single = "embed_query" if method == "embed_queries" else f"{method}([text])"
        message = f"{method} takes a list of strings; one string was given. Use {single} for a single text."
        raise TextTypeError(message)
    if not isinstance(texts, Sequence):
        message = (
            f"{method} takes a list of strings; {type(texts).__name__} was given. "
            "Use iter_documents for generators and other streams, or list(...)."
        )
        raise TextTypeError(message)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            message = (
                f"Item {position} of {len(texts)} is {type(text).__name__} ({text!r:.40}); every item must be a string."
            )
            raise TextTypeError(message)
