"""Each event scored once, and the model that scores it: features, training, gate, registry, explanation."""
