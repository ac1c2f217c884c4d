"""Servers that a program records to and reads from: gittrack's own, and MLflow's."""
