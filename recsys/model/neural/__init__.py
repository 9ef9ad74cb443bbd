"""Neural collaborative filtering (NeuMF) that follows a stream."""
