"""The views: each a module with `build(store)`, which draws into the slot it is called in."""
