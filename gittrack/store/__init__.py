"""Bytes, names and durability: files, git objects and refs, journals, the index.  Knows nothing of machine learning."""
