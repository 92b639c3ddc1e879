"""What lasts: jobs, pictures and keys in one database (docs/server.md)."""
