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
from tests.ui.parquet import parquet

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


ROWS = 1500
TABLE: dict[str, list[int | float | str | None]] = {
    "n": [None, 2**60, *range(2, ROWS)],
    "score": [0.5, float("nan"), *(number / 7 for number in range(2, ROWS))],
    "name": ["a, b", None, *map(str, range(2, ROWS))],
}
FILES: dict[str, bytes] = {
    "stdout.txt": b"".join(b"step %d\n" % step for step in range(LINES)) + b"10%\r50%\r\x1b[32mdone\x1b[0m\n",
    "stderr.txt": b"a warning\n",
    "sound.wav": sound(),
    "scores.csv": b'name,score\r\n"a, b",0.5\r\nc,1\r\n',
    "scores.parquet": parquet(TABLE, codec="snappy"),
    "packed.parquet": parquet({"n": [1]}, codec="zstd"),
    "cut.parquet": parquet({"n": [1]})[:-20],
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
ATTACK = '<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>\'"`${alert(1)}'
#: The name of a file; where it can be one, of anything.
EVIL = '"><img src=x onerror="window.attacked=1">.py'
MARKDOWN = f"""# {ATTACK}

{ATTACK} <a href="javascript:window.attacked=1">x</a> <javascript:window.attacked=1>

[one](javascript:window.attacked=1) [two](JaVaScRiPt:window.attacked=1) [three](data:text/html,<script>x</script>)
[four](\u0001javascript:window.attacked=1) [five](<java\tscript:attacked=1>)
[six](//evil.example/x) [seven](/\\\\evil.example)
![{ATTACK}](javascript:attacked=1) ![x](https://evil.example/x.png) [ref]

[ref]: javascript:window.attacked=1

<script>window.attacked=1</script>

<iframe src="javascript:top.attacked=1"></iframe>

| {ATTACK} | b |
|---|---|
| [x](vbscript:x) | `{ATTACK}` |

```js
{ATTACK}
```
"""
#: Reaches for the page around it, the session and the server in every way that there is.
ESCAPE = """<!doctype html><base href="https://evil.example/">
<body><p id="said">waiting</p><script>
const said = [];
const attempt = (name, work) => { try { work(); said.push(name); } catch {} };
attempt("parent", () => { parent.attacked = 1; });
attempt("document", () => parent.document.title);
attempt("cookie", () => document.cookie);
attempt("storage", () => localStorage.setItem("theme", "dark"));
attempt("top", () => { top.location.href = "/models"; });
attempt("window", () => { if (open("/models")) throw 1; });
try { parent.postMessage("attacked", "*"); } catch {}
const tries = ["/session", "/api/2.0/mlflow/experiments/create"].flatMap((path) => [
  fetch(path, {credentials: "include"}), fetch(path, {method: "POST", mode: "no-cors", body: "{}"}),
]);
navigator.sendBeacon("/api/2.0/mlflow/runs/delete", "{}");
const picture = new Image(); picture.src = "/get-artifact?escaped=1";
const form = Object.assign(document.createElement("form"), {action: "/logout", method: "post"});
document.body.append(form); attempt("form", () => form.submit());
Promise.allSettled(tries).then((all) => {
  all.forEach((one) => one.status === "fulfilled" && said.push("fetch"));
  const done = said.filter((one) => !["top", "window", "form"].includes(one));
  document.getElementById("said").textContent = "said " + done;
});
</script>"""
EVIL_FILES: dict[str, bytes] = {
    "escape.html": ESCAPE.encode(),
    "a.md": MARKDOWN.encode(),
    "a.csv": f"=cmd|' /C calc'!A0,{ATTACK}\n{ATTACK},1\n".encode(),
    "a.json": json.dumps({"__proto__": {"attacked": 1}, ATTACK: [ATTACK]}).encode(),
    "b.json": json.dumps({"columns": [ATTACK], "data": [[ATTACK], [{"x": ATTACK}]]}).encode(),
    "a.parquet": parquet({ATTACK: [ATTACK, "=1+1"], "__proto__": ["x", None]}),
    #: Says that it has more than there is room for, and packs it into a few bytes.
    "b.parquet": parquet({"n": [1]}, claimed=2**31 - 1),
    "c.json": b"[" * 100_000 + b"]" * 100_000,
    "a.svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.attacked=1'><script>top.attacked=1</script></svg>",
    "stdout.txt": f"\x1b]0;{ATTACK}\x07\x1b[31m{ATTACK}\x1b[0m\n".encode(),
    EVIL.replace(".py", ".txt"): ATTACK.encode(),
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
    """Four runs: of the code as it was committed, with a change, with another, and one of which all is an attack."""
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
    for name in (EVIL, "__proto__", "constructor"):
        (folder / name).write_text(f"{ATTACK}\n")
    tags = {"mlflow.note.content": MARKDOWN, "mlflow.source.name": "javascript:window.attacked=1", "__proto__": ATTACK}
    params = {"__proto__": ATTACK, "constructor": ATTACK}
    metrics = {"__proto__": [float("nan")]}
    evil = record(folder, ATTACK, params=params, metrics=metrics, tags=tags, files=EVIL_FILES)
    return [committed, changed, third, evil]
