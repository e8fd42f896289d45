"""The paper's other two tasks: what an image shows, and where, by a network that classifies."""
