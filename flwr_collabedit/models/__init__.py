"""Read and write a transformers model without subclassing it."""
