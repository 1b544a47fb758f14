"""``make bench``: run the measurements, print a table, write ``build/bench.json``.

Every value is a ratio or CPU time taken within one run, interleaved with what it is compared to, median of several: these
survive a noisy machine, absolute wall times do not. Each ``bench_*.py`` here has a ``measurements()`` that yields dicts of
name, value, unit, bar, holds, runs, versus.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAME = re.compile(r"(grant|proof|issue|token|policy|audit|login)(-[a-z0-9]+)+")


def main() -> int:
    """Run what ``--only`` selects (a prefix of module or measurement names); 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", default="", help="measurements whose name, or whose module's name, begins so")
    only = parser.parse_args().only
    results: list[dict[str, object]] = []
    for path in sorted(HERE.glob("bench_*.py")):
        subject = path.stem.removeprefix("bench_")
        if not (subject.startswith(only) or only.startswith(subject.split("_")[0])):
            continue
        module = importlib.import_module(f"tests.benchmarks.{path.stem}")
        for result in module.measurements():
            if not NAME.fullmatch(result["name"]):
                raise ValueError(f"{result['name']} is not named after what it measures")
            if result["name"].startswith(only) or subject.startswith(only):
                results.append(result)
                print(_row(result), flush=True)
    Path("build").mkdir(exist_ok=True)
    measured = {result["name"] for result in results}
    file = Path("build/bench.json")
    others = [kept for kept in (json.loads(file.read_text()) if file.exists() else []) if kept["name"] not in measured]
    file.write_text(json.dumps(others + results, indent=1) + "\n", encoding="utf-8")
    return int(not results or not all(result["holds"] for result in results))


def _row(result: dict[str, object]) -> str:
    mark = "holds" if result["holds"] else "FAILS"
    return (
        f"{result['name']:<44} {result['value']:>10.4g} {result['unit']:<8} bar {result['bar']:<10} {mark:<6}"
        f" n={result['runs']:<3} against {result['versus']}"
    )


if __name__ == "__main__":
    sys.exit(main())
