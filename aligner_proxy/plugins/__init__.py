"""Public plugin API, registry of installed plugins, and the thread that isolates their code."""
