"""Where in a model facts are looked up, measured by causal tracing."""
