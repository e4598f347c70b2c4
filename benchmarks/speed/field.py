"""The running contestants of a model size, each in its process, and the texts that they have been told.

Nothing here measures; it starts, asks and ends.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import LIMIT, Entry
from benchmarks.speed.correctness import YARDSTICKS, Vectors
from benchmarks.speed.processes import AVX2, Answer, ContestantError, Process
from benchmarks.speed.workloads import Workload

FIRST_TEXT = "Everyone has the right to life, liberty and security of person."

STOCK = Entry(
    key="reference",
    label="stock transformers",
    maker="benchmarks.speed.correctness:reference",
    needs=("transformers", "torch"),
    get="pip install transformers torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What is the same for all contestants of a size.

    Attributes:
        folder: The checkpoint.
        device: Where to compute.
        max_length: Tokens at which everyone cuts.
        query_prefix: What stands in front of queries.
        pythons: Executables by contestant; who is absent is skipped.
        rounds: Counted rounds.
        avx2: Whether AMX and AVX-512 are masked off.
        patience: Seconds that one answer may take.
    """

    folder: Path
    device: str
    max_length: int
    query_prefix: str
    pythons: Mapping[str, str]
    rounds: int
    avx2: bool = False
    patience: float = 1800

    def settings(self, variant: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of a maker."""
        common = {"folder": str(self.folder), "device": self.device, "max_length": self.max_length}
        return {**common, "query_prefix": self.query_prefix, **variant}


class Field:
    """The running contestants of one size: a process for each variant, kept from workload to workload.

    Args:
        setup: What all have in common.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._running: dict[str, Process] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._told: set[tuple[str, str, int]] = set()

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_all()

    def close_all(self, *, of: str | None = None, but: Iterable[Mapping[str, Any]] = ()) -> None:
        """End processes.

        Args:
            of: Of this contestant alone; ``None`` means of all.
            but: Its variants that go on.
        """
        kept = {process_name(of, variant) for variant in but} if of is not None else set()
        for name in list(self._running):
            if name not in kept and (of is None or name.startswith(f"{of} ")):
                self.close(name)

    def close(self, name: str) -> None:
        """End one process."""
        self._running.pop(name).close()
        self._told = {told for told in self._told if told[0] != name}

    def start(self, entry: Entry, variant: Mapping[str, Any]) -> str:
        """Have a contestant running, with the first short text embedded.

        Returns:
            The name of its process.

        Raises:
            ContestantError: It cannot be made.
        """
        name = process_name(entry.key, variant)
        if name in self._running:
            return name
        process = Process(
            self.setup.pythons[entry.key],
            environment=AVX2 if self.setup.avx2 else {},
            patience=self.setup.patience,
            label=entry.label,
        )
        try:
            made = process.ask("make", maker=entry.maker, settings=self.setup.settings(variant), first=FIRST_TEXT)
        except ContestantError:
            process.close()
            raise
        self._running[name] = process
        told = {key: made.said[key] for key in ("first_vector_seconds", "first_call_seconds")}
        self._facts[name] = {**made.said["facts"], **told, "extra_seconds": made.said["first_call_seconds"]}
        return name

    def facts(self, name: str) -> dict[str, Any]:
        """What a contestant said of itself, and the ``extra_seconds`` of its first calls: it compiled in them."""
        return self._facts[name]

    def add_extra(self, name: str, seconds: float) -> None:
        """Note that a first call took longer than the next one."""
        self._facts[name]["extra_seconds"] += max(seconds, 0.0)

    def ask(self, name: str, do: str, /, **request: Any) -> Answer:
        """Ask a running contestant; one that dies is forgotten.

        Raises:
            ContestantError: It failed or died.
        """
        try:
            return self._running[name].ask(do, **request)
        except ContestantError:
            if not self._running[name].is_alive:
                self.close(name)
            raise

    def embed(
        self, name: str, workload: Workload, batch_size: int | None, *, rows: Sequence[int] | None = None
    ) -> Answer:
        """Embed a workload's texts; the answer brings the vectors of ``rows``.

        Raises:
            ContestantError: It failed or died.
        """
        texts = f"{workload.key}{len(workload.texts)}"
        told = (name, workload.key, len(workload.texts))
        if told not in self._told:
            lengths = workload.distinct_lengths() if name.startswith(f"{LIMIT} ") else workload.lengths
            prepared = self.ask(name, "texts", name=texts, texts=workload.texts, lengths=lengths, role=workload.role)
            self._facts[name] |= prepared.said["prepared"]
            self._told.add(told)
        return self.ask(name, "embed", name=texts, batch_size=batch_size, rows=None if rows is None else list(rows))


def process_name(key: str, variant: Mapping[str, Any]) -> str:
    """A contestant's key and its variant."""
    return f"{key} {json.dumps(dict(variant), sort_keys=True)}"


def references(setup: Setup, samples: Sequence[Workload], python: str) -> dict[str, dict[str, Vectors]]:
    """Vectors of stock transformers for some texts of each workload.

    Args:
        setup: What all have in common.
        samples: The texts that are compared, by workload.
        python: Executable that has transformers.

    Returns:
        float32 (texts, dimensions) by workload and by yardstick.

    Raises:
        ContestantError: Stock transformers itself does not work here.
    """
    found: dict[str, dict[str, Vectors]] = {sample.key: {} for sample in samples}
    alone = dataclasses.replace(setup, pythons={STOCK.key: python})
    for yardstick in YARDSTICKS:
        with Field(alone) as field:
            name = field.start(STOCK, {"yardstick": yardstick})
            for sample in samples:
                found[sample.key][yardstick] = field.embed(name, sample, None, rows=range(len(sample.texts))).vectors
    return found
