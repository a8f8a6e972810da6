"""Labelled data: tasks, files, encoders, augmentation, batches."""
