"""What MLflow's stores have in common, whatever they are kept in: values, states, and how a run gets its id here."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gittrack.convert.folders import Roots, files_below, local_path
from gittrack.convert.source import Source, SourceFile, SourceModel, SourceRun, SourceVersion
from gittrack.errors import FormatError
from gittrack.types import Dataset, DatasetInput, InputTag, LifecycleStage, ModelVersionStages, RunStatus

#: What an exported run remembers, so that it is the same run when it comes back.
RUN_TAG: Final = "gittrack.runId"
PARENT_TAG: Final = "mlflow.parentRunId"
#: Of registered models and versions that are prompts: texts for a language model.  A version has its text in a tag.
PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
PROMPT_TEXT: Final = "mlflow.prompt.text"
#: Where MLflow says that a version of a prompt comes from.
PROMPT_SOURCE: Final = "prompt-template"
#: Lists the prompts, which MLflow leaves out of a search that does not ask for them.
PROMPTS: Final = f"tags.`{PROMPT_TAG}` = 'true'"
_PROMPT_KIND: Final = "_mlflow_prompt_type"
#: The tags that MLflow gives a prompt by itself.
PROMPT_OWN: Final = frozenset({PROMPT_TAG, PROMPT_TEXT, _PROMPT_KIND})
#: MLflow's numbers of a logged model's states.
MODEL_STATUS: Final = {0: "UNSPECIFIED", 1: "PENDING", 2: "READY", 3: "FAILED"}
_RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
_LOGGED: Final = re.compile(r"models:/+(m-[0-9a-f]{32})")


def text(value: object) -> str:
    """A value that ought to be text, as text; nothing as the empty one."""
    return "" if value is None else value if isinstance(value, str) else str(value)


def number(value: object) -> int:
    """A value that ought to be a whole number; 0 if it is none."""
    if isinstance(value, int):
        return value
    try:
        return int(value)  # type: ignore[call-overload,no-any-return]  # what it refuses is caught
    except (TypeError, ValueError, OverflowError):
        return 0


def value_of(value: object) -> float:
    """A metric's value: MLflow's databases keep an infinity as the greatest number there is."""
    try:
        found = float(value)  # type: ignore[arg-type]  # likewise
    except (TypeError, ValueError):
        return math.nan
    if abs(found) == sys.float_info.max:
        return math.copysign(math.inf, found)
    return found


def stage_of_life(value: object) -> str:
    """``active`` or ``deleted``."""
    return LifecycleStage.DELETED if value == LifecycleStage.DELETED else LifecycleStage.ACTIVE


def dataset(facts: Mapping[str, Any], tags: Mapping[str, str]) -> DatasetInput:
    """A dataset by MLflow's names of its facts, and the tags of its use."""
    more = {key: None if facts.get(key) is None else str(facts[key]) for key in ("schema", "profile")}
    about = Dataset(
        name=text(facts.get("name")),
        digest=text(facts.get("digest")),
        source_type=text(facts.get("source_type")),
        source=text(facts.get("source")),
        **more,
    )
    return DatasetInput(about, [InputTag(key, value) for key, value in tags.items()])


def is_prompt(tags: Mapping[str, str]) -> bool:
    """True for a registered model that is a prompt."""
    return tags.get(PROMPT_TAG, "").lower() == "true"


def is_chat(tags: Mapping[str, str]) -> bool:
    """True for a version of a prompt whose text is a JSON list of messages."""
    return tags.get(_PROMPT_KIND) == "chat"


def versions_of(name: str, *, prompt: bool) -> str:
    """The filter that finds the versions of a registered model, or of a prompt."""
    quote = '"' if "'" in name else "'"
    return f"name={quote}{name}{quote}" + (f" AND {PROMPTS}" if prompt else "")


def prompt_files(tags: Mapping[str, str]) -> Callable[[], Iterable[SourceFile]] | None:
    """The file of a version of a prompt, which MLflow keeps in a tag; None if it is none."""
    content = tags.get(PROMPT_TEXT)
    if content is None:
        return None

    def write(target: Path) -> Path:
        target.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
        return target

    return lambda: [SourceFile("prompt.json" if is_chat(tags) else "prompt.txt", write)]


class Names:
    """The ids that runs get here: those that they have there, or had before they were exported from here."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def learn(self, noted: Iterable[tuple[str, str]]) -> None:
        """Take (id there, what its ``RUN_TAG`` says) of runs: before any run that could be nested in one of them."""
        self._given.update((key, mine) for key, mine in noted if _RUN_ID.fullmatch(mine))

    def run(
        self,
        *,
        key: str,
        tags: Mapping[str, str],
        status: str,
        end_time: object,
        lifecycle_stage: object,
        models: Iterable[SourceModel],
        steps: Mapping[str, int],
        **facts: Any,
    ) -> SourceRun:
        """A run by what a store says about it; ``steps`` are of the models that it made."""
        kept = {name: value for name, value in tags.items() if name != RUN_TAG}
        if PARENT_TAG in kept:
            kept[PARENT_TAG] = self._given.get(kept[PARENT_TAG], kept[PARENT_TAG])
        if status not in map(RunStatus.to_string, RunStatus.all_status()):
            status = "FAILED"
        ended = number(end_time) if end_time is not None else None
        return SourceRun(
            key=key,
            run_id=self._given.get(key, key),
            state=f"{status} {ended or 0}",
            status=status,
            end_time=ended,
            lifecycle_stage=stage_of_life(lifecycle_stage),
            tags=kept,
            models=[replace(model, step=steps.get(model.model_id, 0)) for model in models],
            **facts,
        )


def logged_model(
    *,
    model_id: str,
    name: str,
    run_key: str | None,
    created: int,
    files: Callable[[], Iterable[SourceFile]],
    **facts: Any,
) -> SourceModel:
    """A logged model; ``facts`` are what MLmodel does not say: status, model_type, params, tags, updated."""
    return SourceModel(
        model_id=model_id,
        name=name,
        run_key=run_key or None,
        created=created,
        facts={"created": created, **{key: value for key, value in facts.items() if value}},
        files=files,
    )


def version(
    *,
    source: str,
    location: str | None,
    run_key: object,
    stage: str,
    roots: Roots | None,
    tags: Mapping[str, str],
    **facts: Any,
) -> SourceVersion:
    """A version of a registered model; ``location`` is where its files really are, if the store knows.

    ``roots`` are where files may be that no run has; None: nowhere.
    """
    match = _LOGGED.fullmatch(source)
    prompt = prompt_files(tags)
    folder = None if prompt or roots is None else roots.folder(location or source)
    return SourceVersion(
        source=source,
        run_key=text(run_key) or None,
        model_id=match[1] if match else None,
        stage=next((one for one in ModelVersionStages.ALL if one == stage), ModelVersionStages.NONE),
        tags=tags,
        files=prompt if folder is None else lambda: files_below(folder),
        **facts,
    )


def folder_files(source: Source, roots: Roots, what: str, uri: str | None) -> Iterator[SourceFile]:
    """The files at a store's address; a problem if they cannot be read from here."""
    if not uri:
        return
    folder = roots.folder(uri)
    if folder is not None:
        try:
            yield from files_below(folder)
        except FormatError as error:
            source.problems.append(f"{what}: {error.message}")
    elif not roots.absent(uri):
        why = "are not on this machine" if local_path(uri) is None else "are in no folder that may be read"
        source.problems.append(f"{what}: its files at `{uri:.200}` {why}")
