"""Builds the package. What it holds is declared in pyproject.toml."""

from setuptools import setup

setup()
