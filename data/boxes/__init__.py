"""The boxes file: its schema, a reader for untrusted files, an atomic writer, and summaries."""
