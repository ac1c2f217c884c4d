"""Documents: the editable facts about a model, one document per writer, merged field by field (design section 6).

``refs/gittrack/registry/<writer>`` is a chain of commits whose tree has one msgpack blob per model, named by its key.
A field is text with a Lamport counter and its writer; the greatest wins.  Beside the fields a document keeps a log of
its edits (when, who, what, why), which is only added to: the audit trail, and the history of requirements.

    name  description  lifecycle  made  updated  tags.<key>
    versions.<n>.description  .lifecycle  .run_link  .copied_from  .updated  .requirements  .tags.<key>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import FormatError
from gittrack.registry import names
from gittrack.store import codec
from gittrack.types import Field, ObjectId

if TYPE_CHECKING:
    from gittrack.store.git import GitStore
    from gittrack.store.pack import Batch

VERSION: Final = 1
#: Characters of a value that the log keeps; requirements it keeps whole.
LOGGED: Final = 500
_FILE: Final = 0o100644


class Edit(NamedTuple):
    """One entry of the log.

    Attributes:
        time: Milliseconds since the epoch.
        who: ``Name <mail>``.
        field: What was changed.
        value: To what; None: removed.
        reason: Why, if that was said.
    """

    time: int
    who: str
    field: str
    value: str | None
    reason: str


class Document:
    """The editable facts about one model.  Mutable; folding those of all writers gives what holds."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.fields: dict[str, Field] = {}
        self.log: dict[tuple[int, str, int], Edit] = {}  #: by counter, writer and place among the edits of one call
        self.created = 0  #: milliseconds since the epoch; 0: unknown
        self.updated = 0

    def value(self, field: str) -> str | None:
        """The current value of a field."""
        found = self.fields.get(field)
        return None if found is None else found.value

    def below(self, prefix: str) -> dict[str, str]:
        """The fields below a prefix that have a value, by the rest of their names."""
        return {
            name[len(prefix) :]: field.value
            for name, field in sorted(self.fields.items())
            if field.value is not None and name.startswith(prefix)
        }

    def edit(
        self, writer: str, changes: Mapping[str, str | None], *, now: int, who: str, reason: str = "", known: Document
    ) -> None:
        """Change fields.

        Args:
            writer: Who owns this document.
            changes: Field to new value; None removes.
            now: Milliseconds since the epoch.
            who: For the log.
            reason: For the log.
            known: The fold of all documents of this model: what this edit comes after.
        """
        counter = 1 + max((field.counter for one in (self, known) for field in one.fields.values()), default=0)
        for place, (name, value) in enumerate(changes.items()):
            self.fields[name] = Field(counter, writer, value)
            kept = value if value is None or name.endswith(".requirements") else value[:LOGGED]
            self.log[counter, writer, place] = Edit(now, who, name, kept, reason)
        self.created = self.created or known.created or now
        self.updated = max(self.updated, now)

    def merge(self, other: Document) -> None:
        """Take in what another writer knows."""
        for name, field in other.fields.items():
            if field.beats(self.fields.get(name)):
                self.fields[name] = field
        for place, edit in other.log.items():
            self.log[place] = min(edit, self.log.get(place, edit), key=repr)
        self.created = min(filter(None, (self.created, other.created)), default=0)
        self.updated = max(self.updated, other.updated)

    def encode(self) -> bytes:
        """The document's bytes; equal documents give equal bytes."""
        return codec.pack(
            {
                "created": self.created,
                "fields": {name: [f.counter, f.writer, f.value] for name, f in sorted(self.fields.items())},
                "log": [[*place, *edit] for place, edit in sorted(self.log.items())],
                "updated": self.updated,
                "version": VERSION,
            }
        )

    @classmethod
    def decode(cls, key: str, data: bytes) -> Document:
        """The document that ``data`` was made from.  Raises FormatError."""
        raw = codec.unpack(data)
        try:
            if raw["version"] != VERSION:
                raise FormatError(f"the document of model `{key}` has format version `{raw['version']}`")
            document = cls(key)
            document.created, document.updated = _int(raw["created"]), _int(raw["updated"])
            for name, (counter, writer, value) in raw["fields"].items():
                document.fields[name] = Field(_int(counter), _text(writer), None if value is None else _text(value))
            for counter, writer, place, time, who, field, value, reason in raw["log"]:
                edit = Edit(
                    _int(time), _text(who), _text(field), None if value is None else _text(value), _text(reason)
                )
                document.log[_int(counter), _text(writer), _int(place)] = edit
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"the document of model `{key}` has the wrong shape: {error}") from error
        return document


def _int(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


# -- in git ------------------------------------------------------------------------------------------------------------


def blobs(git: GitStore, commit: ObjectId) -> dict[str, ObjectId]:
    """The blob of each model's document in one commit, by key.  Raises FormatError for what is no key."""
    found = {}
    for name, mode, oid in git.list_tree(git.tree_of(commit)):
        if mode != _FILE or not names.is_key(name):
            raise FormatError(f"the registry's documents have an entry `{name!r:.80}`")
        found[name] = oid
    return found


def read(git: GitStore, key: str, found: Iterable[ObjectId]) -> Document:
    """The fold of these blobs, all of one model.  Raises FormatError, NotFoundError."""
    document = Document(key)
    for oid in found:
        document.merge(Document.decode(key, git.read_blob(oid)))
    return document


def build(
    git: GitStore, batch: Batch, old: ObjectId | None, changed: Iterable[Document], *, message: str, now: int
) -> ObjectId:
    """Add the commit that follows ``old`` to the batch: the same documents, but those of ``changed``."""
    table = {} if old is None else blobs(git, old)
    for document in changed:
        table[document.key] = batch.add_blob(document.encode())
    tree = batch.add_tree((name, _FILE, oid) for name, oid in table.items())
    return batch.add_commit(tree, [] if old is None else [old], message, git.identity(), now // 1000)
