"""The commands, one module each: options, a call to the library, and output. Importing them loads nothing heavy."""
