"""HEAN computes here: components, messages and pure rules. No Ray, network, clock or log."""
