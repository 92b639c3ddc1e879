"""Files: stored by their content, taken in, sent, marked, and ended."""
