"""One command builds the stand-in: `python -m training --work FOLDER`.

Every stage keeps its result in the work folder, so a stopped build goes on with `--stages`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.stages import OUTPUT, STAGES, Build, Log


def main() -> int:
    """Runs the chosen stages in their order."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and intermediate results")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--bag-minutes", type=float, default=15.0)
    parser.add_argument("--attention-minutes", type=float, default=40.0)
    parser.add_argument("--processes", type=int, default=2, help="training processes of one thread each")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the checkpoint is written")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    build = Build(options.work, options.output, Log(options.work / "log.txt"))
    for stage in (name for name in STAGES if name in options.stages):
        build.log(f"stage {stage}")
        if stage == "bag":
            build.bag(options.bag_minutes, options.processes)
        elif stage == "attention":
            build.attention(options.attention_minutes, options.processes)
        else:
            getattr(build, stage)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
