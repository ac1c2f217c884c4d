"""Faults on purpose: kills at every system call, power cuts, full disks, torn files, stale locks, crowds of writers."""
