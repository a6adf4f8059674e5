"""Facts without a model: requests, readers, partitions, the embedded world."""
