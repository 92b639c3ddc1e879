"""The native API: HTTP to calls of the service and back, and nothing else."""
