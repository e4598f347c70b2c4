"""Side-by-side runs against the peers; each writes a table into ``benchmarks/results``."""
