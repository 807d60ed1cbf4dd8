"""How long a finished run's figures take: `python -m experiments.benchmark.drawing <run>`."""

import json
import sys
import tempfile
import time
from pathlib import Path

from vi_core.storage.archive import read_archive
from vi_core.storage.arrays import read_arrays

from ..config.schema import Plot


def main() -> None:
    """Draw all figures of the run in a folder that is thrown away; write the seconds as JSON."""
    folder = Path(sys.argv[1])
    archived = read_archive(folder)
    samples = read_arrays(folder / "samples.npz")
    data = archived.problem.data.train.double().numpy()
    started = time.perf_counter()
    from ..results.figures import Finished, draw  # with matplotlib, as a run imports it

    finished = Finished(archived.summary, archived.trace, samples, data, archived.problem.model)
    with tempfile.TemporaryDirectory() as target:
        draw(finished, Path(target), Plot())
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started}) + "\n")


if __name__ == "__main__":
    main()
