"""The boxes file: its schema, reading it without trust, writing it whole, and what is in it."""
