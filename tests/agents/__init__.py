"""Real coding agents, and a real model, by way of the proxy: what they accept is the proof that counts."""
