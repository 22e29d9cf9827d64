"""Parhelia: hand work to separate agent sessions, keep it safe, stay under budget, get it back as a branch."""

__version__ = "0.1.0"
