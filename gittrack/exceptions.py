"""MLflow's module of this name: ``mlflow.exceptions.MlflowException`` is the base of all errors of gittrack."""

from __future__ import annotations

from gittrack.errors import GittrackError, MlflowException

#: What MLflow raises for a failed request; there are no requests here, but ``except RestException`` keeps working.
RestException = GittrackError

__all__ = ["MlflowException", "RestException"]
