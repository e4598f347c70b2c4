"""``python -m f2rag.cli`` is ``f2rag``."""

from f2rag.cli import main

main()
