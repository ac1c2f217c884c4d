"""The Python API, through its public names, in real git repositories."""
