"""The blocks that the networks are made of, each an equation or a section."""
