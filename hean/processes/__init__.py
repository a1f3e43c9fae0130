"""Processes: what is done once, step by step, and has an end; and who decides which step is next.

A step that was finished is never done again, whatever dies meanwhile. A step that was broken off is: it is told so, and
whoever may not do its work twice looks first whether it was done.
"""
