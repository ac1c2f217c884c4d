"""The verbs of ``gittrack server`` about who may ask it, and about what was done: one file each."""
