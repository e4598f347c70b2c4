"""How fast f2rag is beside its peers and beside the machine's own limit: ``python -m benchmarks.speed``.

    workloads ─► contestants, a process each ─► vectors checked ─► interleaved rounds ─► ratios with intervals
                     limit, a process too ──────────────────────────┘

``workloads.py`` makes the texts, ``contestants.py`` and ``external.py`` say who takes part and how each is used as its
documentation says, ``limit.py`` is what the model's own matrix products and attention take, ``worker.py`` and
``processes.py`` run each in a process of its own, ``correctness.py`` decides whose times count, ``measure.py`` and
``latency.py`` take the times, ``report.py``, ``aims.py`` and ``plot.py`` write them down.
"""
