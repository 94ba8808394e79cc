"""Fuzz the targets one after another: `make fuzz T=600`, or `python -m tests.fuzz.run --help`.

Needs atheris (the extra `fuzz`). Ends by itself; exit code 1 and the input in hexadecimal when one
breaks a promise: fix the code, then add the line to the target's corpus. `--keep` rewrites the
corpora with what reaches new code.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

TARGETS = ("connection", "lines", "topics")
CORPUS = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX = 256
INPUT_TIMEOUT_S = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="rewrite the corpora")
    parser.add_argument("--target", choices=TARGETS, action="append", help="instead of all")
    arguments = parser.parse_args()
    targets = arguments.target or TARGETS
    broken = [t for t in targets if not fuzz(t, arguments.seconds // len(targets), arguments.keep)]
    print(f"broken: {', '.join(broken)}" if broken else "nothing found")
    return 1 if broken else 0


def fuzz(target: str, seconds: int, keep: bool) -> bool:
    """Whether `target` kept its promises for so long."""
    print(f"fuzzing {target} for {seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        grown, merged, found = (Path(directory) / name for name in ("grown", "merged", "found"))
        for made in (grown, merged, found):
            made.mkdir()
        for number, data in enumerate(inputs(target)):
            (grown / f"{number:05}").write_bytes(data)
        limits = (f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_TIMEOUT_S}")
        ended = run_child(
            target,
            *(f"-max_total_time={seconds}", f"-artifact_prefix={found}/", *limits),
            "-verbosity=0",
            str(grown),
        )
        for artifact in sorted(found.iterdir()):
            print(f"{target}: {artifact.name}\n{artifact.read_bytes().hex()}")
        if keep and ended == 0:
            run_child(target, "-merge=1", *limits, "-verbosity=0", str(merged), str(grown))
            kept = sorted({path.read_bytes() for path in merged.iterdir()}, key=by_length)
            lines = "".join(f"{data.hex()}\n" for data in kept)
            (CORPUS / f"{target}.txt").write_text(lines, encoding="ascii")
        return ended == 0


def run_child(target: str, *options: str) -> int:
    return subprocess.run([sys.executable, "-m", "tests.fuzz.run", target, *options]).returncode


def fuzz_here(target: str, options: Sequence[str]) -> None:
    """The child's side: libFuzzer takes the process over and ends it."""
    import atheris

    with atheris.instrument_imports(include=["broker"]):
        check = check_of(target)
    itself = f"{sys.executable} -m tests.fuzz.run {target}"  # How -merge starts it again.
    atheris.Setup([itself, *options], check)
    atheris.Fuzz()


def check_of(target: str) -> Callable[[bytes], None]:
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{target}").check
    return check


def inputs(target: str) -> list[bytes]:
    text = (CORPUS / f"{target}.txt").read_text(encoding="ascii")
    return [bytes.fromhex(line) for line in text.splitlines()]


def by_length(data: bytes) -> tuple[int, bytes]:
    return len(data), data


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in TARGETS:
        fuzz_here(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(main())
