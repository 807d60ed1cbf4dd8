"""Callbacks that keep the course of a run where others look at it: a plain file, TensorBoard, MLflow."""
