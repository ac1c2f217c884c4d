"""Loads a model and predicts its input example; run in an environment that is to be proved, never imported.

Prints one line of JSON: whether it ``works``, whether it ``predicted``, the ``problem`` and the module that is
``missing``, if one is.
"""

from __future__ import annotations

import json
import sys


def _answer(words: list[str]) -> dict[str, object]:
    from gittrack.models import pyfunc

    predicted = False
    try:
        model = pyfunc.load_model(words[0], trust="--trust" in words[1:])
        example = model.input_example
        if example is not None:
            model.predict(example)
            predicted = True
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        return {"works": False, "predicted": predicted, "problem": str(error), "missing": cause.name}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        problem = f"{type(error).__name__}: {error}"
        return {"works": False, "predicted": predicted, "problem": problem[:2000], "missing": None}
    return {"works": True, "predicted": predicted, "problem": "", "missing": None}


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1:])))  # noqa: T201 - its answer to the process that started it
