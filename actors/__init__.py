"""HEAN touches the world here: the command line, gateways, Ray, and (later) HTTP."""
