"""The tracking server: MLflow's REST API, the registry, artifacts and a git remote over the runs of a repository.

A request's way: ``guard`` (who is it, from where, how large), ``app`` (which route), ``messages`` (what does it say),
the route's permission, one handler (``experiments``, ``runs``, ``metrics``, ``registry``, ``artifacts``), ``records``
(the answer).  Handlers call ``gittrack.client``; nothing here knows how runs are kept.
"""
