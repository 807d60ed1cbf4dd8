"""The table of the trials in tests/faults: printed, and written to docs/reliability.md.

python tests/faults/table.py TALLY, where TALLY is the file that `tests.faults.tally` has written.
"""

import json
import sys
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
OUTCOMES = ("right", "lost", "wrong")
INTRODUCTION = """# What was tried to break it

Written by `make test-faults`, which does all of this again. *Right*: the numbers of an undisturbed run, or one line
that refuses and says what to do. *Lost*: refused in one line, with something that had been written no longer usable.
*Wrong*: other numbers without a word, or a traceback.
"""
KINDS = {
    "kill at a file operation": "The process ends, without any clean-up, at each call that opens, syncs or renames a "
    "file of a run; where there is a checkpoint, the run is resumed, and its trace has to equal an uninterrupted one.",
    "flipped bit": "One bit of `checkpoint.pt`, of the one before it or of `checkpoint.rows`, at places spread over "
    "the whole file, is inverted; the file has to be refused, or read with equal content.",
    "truncated file": "`checkpoint.pt` or `checkpoint.rows` is cut at places spread over the whole file.",
    "disk full": "Each call that syncs or renames a file fails with ENOSPC, EDQUOT or EIO, or the folder is removed; "
    "the answer is one line, and a run with a checkpoint goes on from it to the numbers of an uninterrupted one.",
    "disk full at a write": "Each opening of a file to write it, each write and each new folder of a run with figures "
    "fails with ENOSPC, once or from then on, and files are limited in size by the kernel; the answer is one line, and "
    "the run goes on to the numbers of an undisturbed one, from its checkpoint or from its start. A lost line of "
    "run.log stops nothing.",
    "wrong progress": "A checkpoint with a right digest says that another number of steps has been made.",
    "setting changed on resume": "Each setting of the problem is changed, on the command line or by hand in "
    "config.yaml, as a run is resumed; it has to be refused.",
    "damaged folders": "A file of a job is missing, empty, cut, of another type or a folder; loading it, drawing, "
    "reporting, collecting and resuming each give one line, and the other job stays as it was. So do records of a "
    "study and the table of a benchmark of another form.",
    "damaged job of a sweep": "A summary that cannot be read is one row and one line; the other rows stay.",
    "killed job of a sweep": "A job was killed as it began; once the sweep has gone on, no row of it is left.",
    "equal jobs": "Two jobs of one sweep have equal settings; both keep their rows.",
    "ended sweep": "A sweep gets Ctrl-C or SIGTERM, between two jobs and at several moments; its table has those "
    "that finished, and once it has gone on every job, once, with the numbers of an undisturbed sweep.",
    "killed sweep": "A sweep gets SIGKILL as soon as it has written a certain file; once it has gone on, the table has "
    "every job once, and what had finished is as it was.",
    "two processes in one folder": "A second run or sweep in a folder at work is refused, and changes nothing there.",
    "occupied folder": "A folder that holds a run or a sweep is named for a new one; it stays as it was.",
    "finished results": "What holds results is not removed.",
    "failed run started again": "A run that failed before its first checkpoint is started again in its folder.",
    "empty folder": "An empty name of a folder is refused.",
    "path": "A folder whose name has commas, quotes, brackets, spaces or other letters is run in, resumed and read.",
    "option": "`--help`, `--cfg` and `-m` beside `resume=` and `task=` do what they say, and train nothing.",
    "stream": "Output is ASCII, closed or full; the table is on the disk all the same.",
    "hostile inputs": "CSV and YAML files with numbers, names, pipes and anchors that are not what they look like.",
    "hostile settings": "Each typed setting of each part is negative, zero, huge, tiny, infinite, text, a list, empty, "
    "or an integer up to 10^18; the run starts, or one line refuses it.",
}
"""What is done for each kind."""


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the table as Markdown."""
    lines = ["| kind | tried | right | lost | wrong |", "|---|---|---|---|---|"]
    for kind, found in sorted(counts.items()):
        lines.append(f"| {kind} | {found.total()} | {' | '.join(str(found[each]) for each in OUTCOMES)} |")
    return "\n".join(lines)


def page(counts: dict[str, Counter[str]]) -> str:
    """Return docs/reliability.md."""
    said = [f"**{kind[:1].upper()}{kind[1:]}.** {KINDS[kind]}" for kind in sorted(counts) if kind in KINDS]
    return "\n\n".join([INTRODUCTION.strip(), table(counts), *said]) + "\n"


def main(path: Path) -> None:
    """Print the table of a file of counts, and write the page."""
    counts: dict[str, Counter[str]] = {}
    for line in path.read_text().splitlines():
        trial = json.loads(line)
        counts.setdefault(trial["kind"], Counter())[trial["outcome"]] += 1
    print(table(counts))
    PAGE.write_text(page(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
