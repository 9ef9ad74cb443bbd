"""All interactions in memory: ids, pairs, adjacency lists, time decay."""
