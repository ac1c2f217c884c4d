"""Sharing: runs, models and artifacts to and from any git remote (design sections 2, 4, 6 and 7).

A remote is another clone's word and no more.  What it sends goes into quarantine, is looked at as strictly as if an
enemy had made it, and only then moves refs, by compare-and-swap; nothing local is overwritten, deleted or pruned.
"""
