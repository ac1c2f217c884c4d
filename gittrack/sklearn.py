"""``gittrack.sklearn``: scikit-learn under MLflow's name."""

from gittrack.frameworks.sklearn import autolog

__all__ = ["autolog"]
