"""The registry: models by name, as annotated tags and per-writer documents (design section 7, `help storage`)."""
