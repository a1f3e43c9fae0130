"""HEAN touches the world here: the command line, gateways, and (later) Ray and HTTP."""
