"""The application: durable jobs, a gallery and an HTTP server over the library (docs/server.md)."""
