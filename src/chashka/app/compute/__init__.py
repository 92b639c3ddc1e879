"""Where jobs are computed: the worker that pulls, the processes that draw, the models that they keep open."""
