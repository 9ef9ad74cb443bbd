"""Items by their text: the encoder, its adapter, and factors for cold items."""
