"""Store -> tuned tails, and the sweep over depth that starts from the solved probe.

Floor 5: reads activations at a cut from the store, starts from `probing`, trains with `training`.
Empty until unfreezing is built (part 3 of the plan, see ARCHITECTURE.md).
"""
