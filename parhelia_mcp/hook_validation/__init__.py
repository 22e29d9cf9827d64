"""What Claude Code makes of hook configurations: where they come from, their shape, their commands, a dry run, repair."""
