"""Builds the stand-in checkpoint `f2rag/data/stand_in/` from pinned packages (see README.md in this folder)."""
