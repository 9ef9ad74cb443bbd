"""What benches share: data, peers, protocols, pictures."""
