"""How many prepared products oneDNN keeps, torch's library for matrix products in half precision on a CPU.

For each shape of a product oneDNN generates machine code, most of a megabyte, and keeps it; another number of tokens is
another shape. It keeps 1,024 of them unless told otherwise, and torch's own table of them holds as many: a stream of
texts of all lengths fills that with 0.8 GB, more than ten times an 80M model's layers.
"""

from __future__ import annotations

import os

_CAPACITY = "128"
"""Products that are kept; a forward takes nine. Measured on a Zen 4 in bfloat16 with batches that are all different: a
tiny model's process takes 0.5 GB instead of 1.2, and 1.3 times as long (with 256 0.7 GB and 1.15 times as long). In the
80M's shape a batch of passages whose products are all new takes 1.02 times as long as one again, a short query 1.1
times."""

_TABLES = (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"), ("LRU_CACHE_CAPACITY",))
"""oneDNN's own table, by its new and its old name, and that of torch, which it has for each thread that computes."""


def limit_kept_products() -> None:
    """Keep fewer of them, unless their number was chosen by environment.

    The variables stay set: oneDNN reads its own at the first product, torch reads its own in each thread's first.
    What had computed in this process before keeps what it has.
    """
    for names in _TABLES:
        if not any(os.environ.get(name) for name in names):
            os.environ[names[0]] = _CAPACITY
