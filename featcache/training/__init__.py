"""The trainer of tails and MLP heads: schedules, mixup, early stop, BatchNorm guard.

Floor 2: given modules and arrays, it gives trained modules. It knows no cache and no picture.
Empty until unfreezing is built (part 3 of the plan, see ARCHITECTURE.md).
"""
