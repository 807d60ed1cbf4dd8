"""Execution: how the operations of a step are issued to the device. Private torch interfaces are used here alone."""
