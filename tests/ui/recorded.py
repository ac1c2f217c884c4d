"""Runs that carry code, an environment and files of every kind, as a training on this machine records them."""

import json
import struct
import wave
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from gittrack.store.repo import Repo
from gittrack.track.capture import Capturer
from gittrack.track.runs import Tracker
from tests.conftest import run_git

START = 1_700_000_000_000
LINES = 5000
#: More than is fetched for a preview.
LARGE = 300 << 10


def png(red: int) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, 80, 120)) * 16) * 16
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip


def sound() -> bytes:
    """Half a second of silence."""
    written = BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"\x80" * 4000)
    return written.getvalue()


FILES: dict[str, bytes] = {
    "stdout.txt": b"".join(b"step %d\n" % step for step in range(LINES)) + b"10%\r50%\r\x1b[32mdone\x1b[0m\n",
    "stderr.txt": b"a warning\n",
    "sound.wav": sound(),
    "scores.csv": b'name,score\r\n"a, b",0.5\r\nc,1\r\n',
    "table.json": json.dumps({"columns": ["x", "y"], "data": [[1, "one"], [2, None]]}).encode(),
    "conf/deep/er/config.json": b'{"model": {"layers": [1, 2, 3]}, "name": "net"}',
    "broken.json": b'{"a": ',
    "README.md": b"# Title\n\nSome *words*, `code` and a [link](https://example.com/x).\n\n- one\n- two\n\n"
    b"|a|b|\n|-|-|\n|1|2|\n",
    "report.html": b"<!doctype html><title>r</title><style>p{color:red}</style><p>static</p>"
    b"<script>document.body.append('scripted')</script>",
    "figure.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><path d="M0 0h40v20H0z"/></svg>',
    "paper.pdf": b"%PDF-1.4\n%%EOF\n",
    "model.bin": b"\0" * 100,
    "large.txt": b"0123456789abcde\n" * (LARGE // 16),
    **{f"many/file-{number:04}.txt": b"x" for number in range(1500)},
}
NOTE = "What **mattered**:\n\n- the data\n- the [seed](https://example.com/seed)"


def record(
    folder: Path,
    name: str,
    *,
    number: int = 0,
    params: Mapping[str, str] | None = None,
    metrics: Mapping[str, list[float]] | None = None,
    files: Mapping[str, bytes] | None = None,
    tags: Mapping[str, str] | None = None,
    end: bool = True,
) -> str:
    """Record a run with the code as it is in the folder now."""
    capture = Capturer(argv=["train.py", "--lr", "0.1"], environ={"CUDA_VISIBLE_DEVICES": str(number)}, cwd=folder,
                       mode="full", max_untracked=1 << 20)  # fmt: skip
    tracker = Tracker(Repo.find(folder, create=True), capture=capture, strict=True)
    run = tracker.create_run(name=name, start_time=START + number, user_id="ana", tags=dict(tags or {}))
    tracker.flush()
    run.log_params(dict(params or {}))
    for key, values in (metrics or {}).items():
        for step, value in enumerate(values):
            run.log_metric(key, value, step, START + step)
    for path, data in (files or {}).items():
        run.log_bytes(data, path)
    if end:
        run.end("FINISHED")
    tracker.close()
    return str(run.run_id)


def seed(folder: Path) -> list[str]:
    """Three runs: of the code as it was committed, with a change, and with another."""
    run_git(folder, "init", "--quiet")
    run_git(folder, "remote", "add", "origin", "git@github.com:team/model.git")
    (folder / "src").mkdir()
    (folder / "train.py").write_text("import model\n\nlr = 0.1\nprint(lr)\n")
    (folder / "src" / "model.py").write_text("layers = 2\n")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "a model")
    committed = record(
        folder, "committed", number=2, params={"lr": "0.1", "epochs": "3"}, tags={"team": "blue"},
        metrics={"loss": [3.0, 1.0, 2.0], "acc": [0.5], "nothing": [float("nan")], "system/cpu": [10.0, 20.0]},
        files={"plots/curve.png": png(200), "plots/only.png": png(20)},
    )  # fmt: skip
    (folder / "train.py").write_text("import model\n\nlr = 0.2\nprint(lr)\n")
    (folder / "new.py").write_text("x = 1\n")
    changed = record(
        folder, "changed", number=1, params={"lr": "0.2", "epochs": "3"}, tags={"mlflow.note.content": NOTE},
        metrics={"loss": [4.0, 0.5], "acc": [0.9]}, files={**FILES, "plots/curve.png": png(90)},
    )  # fmt: skip
    (folder / "src" / "model.py").write_text("layers = 3\n")
    third = record(folder, "third", number=0, params={"lr": "0.2", "epochs": "3", "extra": "1"})
    return [committed, changed, third]
