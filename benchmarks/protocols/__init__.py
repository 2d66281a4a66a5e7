"""How a pre-trained model is judged; each result names the protocol that made it."""
