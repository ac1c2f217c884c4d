"""What was recorded here, told to a MLflow server: frames of a journal become calls of its REST API.

A run has an id of the server's there, so what it is called is kept beside the outbox, also if it has the same id here
because it was made there first.  A piece of a journal that is
told twice is the same as told once, as far as MLflow's API lets: points and tags are the same ones, params may be
written again as they are, files are written over, and a run that was perhaps made is looked for before it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import NotFoundError
from gittrack.remote import wire
from gittrack.remote.folders import Folder
from gittrack.remote.http import Connection, quoted
from gittrack.remote.runs import batches
from gittrack.store import codec, files
from gittrack.store.record import CREATE, STATUS, RunState
from gittrack.types import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, ModelOutput, check_run_id

if TYPE_CHECKING:
    from gittrack.store.repo import Repo

#: The tag by which a run is known again whose making was not answered; exports of runs have the same one.
RUN_TAG: Final = "gittrack.runId"
_PARENT_TAG: Final = "mlflow.parentRunId"
_COMMIT_TAG: Final = "mlflow.source.git.commit"


class Teller:
    """Tells one server of runs.  One thread at a time.

    Args:
        connection: The server.
        repo: Where the bytes of artifacts are.
        ids: A folder for what runs are called there.
    """

    def __init__(self, connection: Connection, repo: Repo, ids: Path) -> None:
        self._connection = connection
        self._repo = repo
        self._ids = ids
        self._models: dict[str, bool] = {}  # whether the server has them

    # -- what runs are called ----------------------------------------------------------------------------------------

    def there(self, run_id: str) -> str | None:
        """The server's id of a run; None if it does not know the run yet.  Raises StorageError."""
        note = self._note(run_id)
        return None if note is None else note.get("run_id")

    def called(self, run_id: str, there: str) -> None:
        """Note the server's id of a run.  Raises StorageError."""
        self._write(run_id, {"run_id": check_run_id(there)})

    def _note(self, run_id: str) -> dict[str, str] | None:
        path = self._ids / f"{check_run_id(run_id)}.json"
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.failure(error, path, "read") from error
        except ValueError:  # a crash took its bytes: as if it had not been written
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, run_id: str, note: dict[str, str]) -> None:
        files.make_dirs(self._ids)
        files.write_atomic(self._ids / f"{run_id}.json", json.dumps(note).encode())

    # -- telling -----------------------------------------------------------------------------------------------------

    def tell(self, run_id: str, payloads: Sequence[bytes]) -> None:
        """Tell the server what some frames of a run's journal say; on return it has all of it.

        Raises:
            NetworkError: It is away; tell it again.
            NotFoundError: The run was not made by a frame that it was told.
            GittrackError: It refuses what is told.
        """
        news = RunState(run_id)
        events = [codec.unpack(payload) for payload in payloads]
        for event in events:
            news.apply(event)
        there = self.there(run_id)
        made = next((event[1] for event in events if event[0] == CREATE), None)
        if there is None:
            if made is None:
                raise NotFoundError(f"run `{run_id}` is not on the server", hint="its beginning was not shipped")
            there = self._make(run_id, made)
        found = (one for one in _every_point(news) if one.model_id is None or self._has_model(one.model_id))
        for some in batches(wire.pairs(news.params), self._tags(there, news), [wire.point(one) for one in found]):
            self._post("runs/log-batch", there, some)
        self._artifacts(there, news)
        self._links(there, news)
        ended = any(event[0] == STATUS for event in events)
        name = news.fields.get("name")
        facts = wire.present(
            status=news.status if ended else None,
            end_time=news.end_time if ended else None,
            run_name=None if name is None or (made and made["name"] == name.value) else name.value,
        )
        if facts:
            self._post("runs/update", there, facts)
        stage = news.fields.get("lifecycle")
        if stage is not None:
            self._post("runs/delete" if stage.value == LifecycleStage.DELETED else "runs/restore", there, {})

    def _post(self, path: str, there: str, body: wire.Json) -> None:
        self._connection.post(path, {"run_id": there, **body}, repeatable=True)

    def _make(self, run_id: str, facts: dict[str, Any]) -> str:
        """Make a run, unless it was made and the answer got lost; its id there."""
        if self._note(run_id) is not None:
            body = {"experiment_ids": [facts["experiment_id"]], "filter": f"tags.`{RUN_TAG}` = '{run_id}'"}
            found = wire.page(self._connection.post("runs/search", body, repeatable=True), "runs", wire.run)
            if found:
                self.called(run_id, found[0].info.run_id)
                return found[0].info.run_id
        self._write(run_id, {})  # from now on it may be there
        tags = dict(facts.get("tags", {}))
        parent = tags.get(_PARENT_TAG) or facts.get("parent_run_id")
        if parent:
            tags[_PARENT_TAG] = self.there(parent) or parent
        body = wire.present(
            experiment_id=facts["experiment_id"],
            run_name=facts["name"],
            start_time=facts["start_time"],
            user_id=facts.get("user_id") or None,
            tags=wire.pairs({**tags, RUN_TAG: run_id}),
        )
        made = wire.run(wire.part(self._connection.post("runs/create", body), "run")).info.run_id
        self.called(run_id, made)
        return made

    def _tags(self, there: str, news: RunState) -> list[wire.Json]:
        """The tags to be set; those that were removed are removed there, too."""
        tags: dict[str, str] = {}
        for field, edit in news.fields.items():
            key = field.removeprefix("tags.")
            if key == field:
                continue
            if edit.value is not None:
                tags[key] = edit.value
                continue
            try:
                self._post("runs/delete-tag", there, {"key": key})
            except NotFoundError:
                continue  # it was told before
        if tags.get(_PARENT_TAG):
            tags[_PARENT_TAG] = self.there(tags[_PARENT_TAG]) or tags[_PARENT_TAG]
        commit = news.code.get("commit")
        if commit:
            tags.setdefault(_COMMIT_TAG, commit)
        return wire.pairs(tags)

    def _artifacts(self, there: str, news: RunState) -> None:
        if not news.artifacts:
            return
        run = wire.run(wire.part(self._connection.get("runs/get", run_id=there), "run"))
        folder = Folder(self._connection, run.info.artifact_uri, run_id=there)
        for path, artifact in news.artifacts.items():
            if artifact is not None:
                folder.send(path, self._repo.objects.path(artifact.digest))
                continue
            try:
                folder.remove(path)
            except NotFoundError:
                continue  # it was told before

    def _links(self, there: str, news: RunState) -> None:
        """What the run read and made.  MLflow refuses what it has of models already, so that is asked first."""
        read = [wire.read_dataset(_dataset_input(one)) for one in news.inputs if "dataset" in one]
        used = {one["model_id"] for one in news.inputs if "model_id" in one}
        made = {one["model_id"]: one.get("step", 0) for one in news.outputs}
        if used or made:
            run = wire.run(wire.part(self._connection.get("runs/get", run_id=there), "run"))
            used -= {one.model_id for one in run.inputs.model_inputs}
            for one in run.outputs.model_outputs:
                made.pop(one.model_id, None)
        models = [{"model_id": one} for one in sorted(used) if self._has_model(one)]
        if read or models:
            self._post("runs/log-inputs", there, wire.present(datasets=read or None, models=models or None))
        outputs = [wire.made_model(ModelOutput(one, step)) for one, step in made.items() if self._has_model(one)]
        if outputs:
            self._connection.post("runs/outputs", {"run_id": there, "models": outputs})

    def _has_model(self, model_id: str) -> bool:
        """Whether the server has a logged model.

        One that was logged while it was away is there as files of its run, as MLflow had it before version 3.
        """
        if model_id not in self._models:
            try:
                self._connection.get(f"logged-models/{quoted(model_id)}")
            except NotFoundError:
                self._models[model_id] = False
            else:
                self._models[model_id] = True
        return self._models[model_id]


def _every_point(news: RunState) -> Iterator[Metric]:
    on = {(key, step, timestamp): to for key, step, timestamp, to in news.links if "value" not in to}
    for key in news.current_summaries():
        for one in news.new_history(key):
            to = on.get((key, one.step, one.timestamp), {})
            yield one._replace(dataset_name=to.get("dataset_name"), dataset_digest=to.get("dataset_digest"))
    for key, step, timestamp, to in news.links:
        if "value" in to:  # of a model: the point may have been told before
            about = {name: to.get(name) for name in ("model_id", "dataset_name", "dataset_digest")}
            yield Metric(key, float(to["value"]), timestamp, step, **about)


def _dataset_input(found: dict[str, Any]) -> DatasetInput:
    facts = {name: found["dataset"].get(name) for name in Dataset.__slots__}
    return DatasetInput(Dataset(**facts), [InputTag(key, value) for key, value in found.get("tags", {}).items()])
