"""Tests of gittrack; a package so that they can share modules by absolute import."""
