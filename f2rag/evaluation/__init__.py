"""Measuring retrieval: queries and judgements in, nDCG, recall and MRR with their intervals out.

files.py       queries, judgements and corpora as BEIR and TREC write them
measures.py    the measures of ``ir_measures``, and bootstrap intervals by scipy
scan.py        exact search in numpy over pages of vectors, cut and compressed in any way
retrieval.py   ``evaluate``: a collection against judgements

It needs the extra ``evaluate``: ``pip install 'f2rag[evaluate]'``.
"""

from __future__ import annotations

from f2rag.evaluation.files import Judgements, Query, read_corpus, read_judgements, read_queries
from f2rag.evaluation.measures import Estimate
from f2rag.evaluation.retrieval import Evaluation, EvaluationWarning, Run, evaluate

__all__ = [
    "Estimate",
    "Evaluation",
    "EvaluationWarning",
    "Judgements",
    "Query",
    "Run",
    "evaluate",
    "read_corpus",
    "read_judgements",
    "read_queries",
]
