"""oneDNN's kept products: their number is bounded, and a process that computes ever new shapes stays small."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from f2rag import onednn

NEW, OLD, TORCH = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"

GROWING = """
import threading
import psutil
from f2rag.device import plan_device
plan_device("cpu")
import torch

def resident():
    return psutil.Process().memory_info().rss / 2**20

def multiply(rows):
    with torch.inference_mode():
        for count in rows:
            torch.nn.functional.linear(torch.zeros(count, 320, dtype=torch.bfloat16), weight)

def compute():
    multiply([300, 999])
    before = resident()
    multiply(range(301, 999))
    print(resident() - before)

weight = torch.zeros(960, 320, dtype=torch.bfloat16)
thread = threading.Thread(target=compute)
thread.start()
thread.join()
"""


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch):
    for name in (NEW, OLD, TORCH):
        monkeypatch.setenv(name, "")


def test_both_tables_are_bounded():
    onednn.limit_kept_products()
    assert (os.environ[NEW], os.environ[TORCH]) == ("128", "128")


@pytest.mark.parametrize(("chosen", "other"), [(NEW, TORCH), (TORCH, NEW), (OLD, TORCH)])
def test_what_was_chosen_stays(chosen, other, monkeypatch):
    monkeypatch.setenv(chosen, "7")
    onednn.limit_kept_products()
    assert (os.environ[chosen], os.environ[other]) == ("7", "128")
    assert os.environ[NEW] == {NEW: "7", OLD: ""}.get(chosen, "128")


def grown(**environment: str) -> float:
    """MiB that a process grows by, of 698 products in bfloat16 of as many shapes."""
    kept = {name: value for name, value in os.environ.items() if name not in (NEW, OLD, TORCH)}
    done = subprocess.run(
        [sys.executable, "-c", GROWING],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return float(done.stdout)


def test_a_process_whose_products_are_all_new_stays_small():
    unbounded = grown(**{NEW: "1024", TORCH: "1024"})
    if unbounded < 100:
        pytest.skip("needs a CPU whose products in bfloat16 are oneDNN's (AVX512-BF16 or AMX); elsewhere nothing grows")
    assert grown() < unbounded / 2
