"""Checkpoints: a workspace and its conversation at one moment, every byte checked. `FORMAT.md` is normative."""
